"""Small architectures of many families, written here from their papers' ideas, for the table in README.md.

Images are (1, 28, 28) with 10 classes, signals (6, 128) or (6, 1, 128) with 7. `ZOO` maps a name to a factory and
its input shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from benchmarks.quantization.zoo_blocks import conv_bn, head
from benchmarks.quantization.zoo_mobile import ShuffleV1, ShuffleV2, mobile, mobilenet_v1
from benchmarks.quantization.zoo_plain import (
    Autoencoder,
    AveragePoolNet,
    Bottleneck,
    Dense,
    Inception,
    LeNet,
    PreActivationBlock,
    ResNet,
    UNet,
    perceptron,
    plain_softmax,
    squeezenet,
)
from benchmarks.quantization.zoo_sequences import GatedRecurrent, TemporalNet, TinyTransformer, conv1d_pool_net
from edgekd.core.spaces import space_named
from edgekd.nn.students import Student

IMAGE, SIGNAL, HIGH_SIGNAL = (1, 28, 28), (6, 128), (6, 1, 128)


def student(space: str, native: tuple[int, int, int], classes: int, **choices: int) -> nn.Module:
    dimensions = space_named(space).dimensions(native)
    chosen = {name: choices.get(name, values[-1]) for name, values in dimensions.items()}
    return Student(space_named(space).architecture(chosen, native, classes))


Factory = Callable[[], nn.Module]
ZOO: dict[str, tuple[Factory, Sequence[int]]] = {
    "ours: inverted residual": (
        lambda: student("inverted-residual", IMAGE, 10, width=8, depth=2, expansion=4, stem_stride=2, kernel=3),
        IMAGE,
    ),
    "ours: ds-cnn signal": (lambda: student("ds-cnn", HIGH_SIGNAL, 7, width=16, depth=3, kernel=5), HIGH_SIGNAL),
    "perceptron": (perceptron, IMAGE),
    "LeNet": (LeNet, IMAGE),
    "average pools": (AveragePoolNet, IMAGE),
    "ResNet": (ResNet, IMAGE),
    "ResNet, pooled stem": (lambda: ResNet(stem_pool=True), IMAGE),
    "ResNet, pre-activation": (
        lambda: nn.Sequential(conv_bn(1, 16, stride=2), PreActivationBlock(16), PreActivationBlock(16), head(16)),
        IMAGE,
    ),
    "ResNeXt": (lambda: nn.Sequential(conv_bn(1, 24, stride=2), Bottleneck(24, 4), Bottleneck(24, 4), head(24)), IMAGE),
    "MobileNetV1": (mobilenet_v1, IMAGE),
    "MobileNetV2": (lambda: mobile(nn.ReLU6), IMAGE),
    "MobileNetV3": (lambda: mobile(nn.Hardswish, nn.Hardsigmoid), IMAGE),
    "EfficientNet-Lite": (lambda: mobile(nn.ReLU6, kernels=(3, 5, 5, 5), expansion=4), IMAGE),
    "EfficientNet (SiLU, SE)": (lambda: mobile(nn.SiLU, nn.Sigmoid), IMAGE),
    "SE with linear layers": (lambda: mobile(nn.ReLU, nn.Sigmoid, linear=True), IMAGE),
    "SqueezeNet": (squeezenet, IMAGE),
    "ShuffleNetV1": (
        lambda: nn.Sequential(conv_bn(1, 24, stride=2), ShuffleV1(24), ShuffleV1(24), head(24)),
        IMAGE,
    ),
    "ShuffleNetV2": (
        lambda: nn.Sequential(conv_bn(1, 24, stride=2), ShuffleV2(24), ShuffleV2(24), head(24)),
        IMAGE,
    ),
    "DenseNet": (lambda: nn.Sequential(conv_bn(1, 16, stride=2), Dense(16, 8, 3), nn.ReLU(), head(40)), IMAGE),
    "Inception": (lambda: nn.Sequential(conv_bn(1, 16, stride=2), Inception(16), Inception(32), head(32)), IMAGE),
    "softmax output": (plain_softmax, IMAGE),
    "autoencoder": (Autoencoder, IMAGE),
    "U-Net": (UNet, IMAGE),
    "TCN (Conv1d)": (TemporalNet, SIGNAL),
    "CNN (Conv1d, max pools)": (conv1d_pool_net, SIGNAL),
    "transformer": (TinyTransformer, IMAGE),
    "GRU": (GatedRecurrent, SIGNAL),
}
