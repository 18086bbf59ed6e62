"""Operators of users' models beyond convolutions: each in int8, or kept in float by leave, the same in every form."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from edgekd.convert.audit import audit_file
from edgekd.convert.inference import run_model
from edgekd.convert.isolated import write_network
from edgekd.convert.parity import compare, torch_logits
from edgekd.errors import BuildError
from edgekd.nn.quantized.model import quantize_model

IMAGE, SIGNAL = (1, 12, 12), (3, 16)


def conv(channels, width, stride=1):
    return nn.Conv2d(channels, width, 3, stride, 1)


def classified(channels, *layers):
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5))


class Scaled(nn.Module):
    """Sums and products with numbers and parameters."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = conv(1, 8), nn.Linear(8, 5)
        self.shift = nn.Parameter(torch.randn(8, 1, 1))

    def forward(self, inputs):
        return self.head(((self.conv(inputs * 2 - 0.5) + self.shift) / 3).mean((2, 3)))


class Transformer(nn.Module):
    """torch's encoder layer over patches; a mean over tokens."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 16, 4, 4)
        self.encoder = nn.TransformerEncoderLayer(16, 2, 24, 0.0, batch_first=True)
        self.classifier = nn.Linear(16, 5)

    def forward(self, inputs):
        return self.classifier(self.encoder(self.patches(inputs).flatten(2).transpose(1, 2)).mean(1))


class Attention(nn.Module):
    """Attention as many write it: one linear layer for queries, keys and values, products by hand."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm, self.heads = nn.Conv1d(3, 16, 1), nn.LayerNorm(16), 4
        self.position = nn.Parameter(0.1 * torch.randn(1, 16, 16))
        self.qkv, self.joined, self.classifier = nn.Linear(16, 48), nn.Linear(16, 16), nn.Linear(16, 5)

    def forward(self, inputs):
        tokens = self.embed(inputs).transpose(1, 2) + self.position
        count, length, width = tokens.shape
        query, key, value = (
            part.view(count, length, self.heads, width // self.heads).transpose(1, 2)
            for part in self.qkv(self.norm(tokens)).chunk(3, -1)
        )
        weights = (query @ key.transpose(-2, -1) * (width // self.heads) ** -0.5).softmax(-1)
        mixed = (weights @ value).transpose(1, 2).reshape(count, length, width)
        return self.classifier((tokens + self.joined(mixed)).mean(1))


class ChannelsLast(nn.Module):
    """ConvNeXt's block (Liu et al. 2022): a layer norm and linear layers over the pixels of an image."""

    def __init__(self):
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(1, 8, 2, 2), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm, self.wide, self.narrow = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)
        self.gain, self.head = nn.Parameter(torch.rand(8)), nn.Linear(8, 5)

    def forward(self, inputs):
        inputs = self.stem(inputs)
        changed = self.narrow(F.gelu(self.wide(self.norm(self.depthwise(inputs).permute(0, 2, 3, 1))))) * self.gain
        return self.head((inputs + changed.permute(0, 3, 1, 2)).mean((2, 3)))


class TokenMixing(nn.Module):
    """A linear layer over the time of a signal (MLP-Mixer: Tolstikhin et al. 2021)."""

    def __init__(self):
        super().__init__()
        self.mix, self.embed, self.head = nn.Linear(16, 16), nn.Conv1d(3, 8, 1), nn.Linear(8, 5)

    def forward(self, inputs):
        return self.head(torch.relu(self.mix(self.embed(inputs))).mean(-1))


class Words(nn.Module):
    """Ids of words, and of places, through embeddings."""

    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(300, 16), nn.Embedding(12, 16)
        self.wide, self.conv, self.head = nn.Linear(16, 24), nn.Conv1d(24, 24, 3, padding=1), nn.Linear(24, 5)

    def forward(self, inputs):
        tokens = self.words(inputs.flatten(1).long()) + self.places(torch.arange(12))
        return self.head(torch.relu(self.conv(torch.relu(self.wide(tokens)).transpose(1, 2))).mean(-1))


INTEGERS = {
    "tanh": (lambda: classified(6, conv(1, 8), nn.Tanh(), conv(8, 6)), IMAGE),
    "PReLU": (lambda: classified(6, conv(1, 8), nn.PReLU(8), conv(8, 6)), IMAGE),
    "PReLU of any slope": (lambda: classified(6, conv(1, 8), nn.PReLU(8, init=-0.3), conv(8, 6)), IMAGE),
    "transposed by 2": (lambda: classified(6, conv(1, 8, 2), nn.ConvTranspose2d(8, 6, 2, 2), nn.ReLU()), IMAGE),
    "transposed, overlapping": (
        lambda: classified(6, conv(1, 8, 2), nn.ConvTranspose2d(8, 6, 4, 2, 1, bias=False), nn.BatchNorm2d(6)),
        IMAGE,
    ),
    "transposed, padded": (lambda: classified(6, conv(1, 8, 2), nn.ConvTranspose2d(8, 6, 3, 2, 1, 1)), IMAGE),
    "transposed along width": (
        lambda: classified(6, conv(1, 8, 2), nn.ConvTranspose2d(8, 6, (3, 2), (1, 2), (1, 0)), nn.ReLU()),
        IMAGE,
    ),
    "pixel shuffle": (lambda: classified(4, conv(1, 8, 2), nn.PixelShuffle(2), conv(2, 4)), IMAGE),
    "numbers and parameters": (Scaled, IMAGE),
    "token mixing": (TokenMixing, SIGNAL),
}
FLOATS = {
    "GELU": (lambda: classified(6, conv(1, 8), nn.GELU(), conv(8, 6), nn.GELU("tanh")), IMAGE, "gelu"),
    "bilinear": (lambda: classified(6, conv(1, 6, 2), nn.Upsample(scale_factor=2, mode="bilinear")), IMAGE, "upsample"),
    "bilinear with corners": (
        lambda: classified(6, conv(1, 6, 2), nn.UpsamplingBilinear2d(scale_factor=2), conv(6, 6)),
        IMAGE,
        "upsample",
    ),
    "transformer": (Transformer, IMAGE, r"scaled_dot_product_attention.default at encoder.self_attn \(Multihead"),
    "attention by hand": (Attention, SIGNAL, r"layer_norm.default at norm \(LayerNorm\)"),
    "channels last": (ChannelsLast, IMAGE, "layer_norm"),
}


def made(factory, shape):
    torch.manual_seed(0)
    model, inputs = factory().train(), torch.randn(40, *shape)
    with torch.no_grad():
        model(inputs)
    return model.eval(), inputs


def require_agreement(model, quantized, inputs, directory):
    network, expected = quantized.network(), torch_logits(quantized, inputs.numpy())
    images = inputs.numpy() if inputs.dim() == 4 else inputs.unsqueeze(2).numpy()
    for file_format, kernels in (("tflite", "deployed"), ("onnx", "exact")):
        path = directory / f"model.{file_format}"
        write_network(quantize_model(model, inputs, "fp32").network(), path)
        with torch.no_grad():
            np.testing.assert_allclose(run_model(path, images[:8]), model(inputs[:8]).numpy(), atol=1e-5, rtol=1e-4)
        write_network(network, path)
        audit = audit_file(path, quantized.scheme)
        assert audit.honest and not audit.findings, audit.findings
        pair = compare(file_format, expected, run_model(path, images, kernels), network.output_scale())
        assert pair.identical_logits >= 0.97 and pair.max_abs_lsb <= 1, pair
    return path


@pytest.mark.parametrize("name", INTEGERS)
def test_it_has_an_int8_form_that_agrees(name, tmp_path):
    model, inputs = made(*INTEGERS[name])
    quantized = quantize_model(model, inputs)
    quantized.calibrate([inputs])
    quantized.eval()
    with torch.no_grad():
        noise = (quantized(inputs) - model(inputs)).square().mean() / model(inputs).square().mean()
    assert noise < 0.02
    path = require_agreement(model, quantized, inputs, tmp_path)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    executed = [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]
    assert executed.count("QuantizeLinear") == executed.count("DequantizeLinear") == 1, executed


@pytest.mark.parametrize("name", FLOATS)
def test_it_is_kept_in_float_by_leave_only(name, tmp_path):
    factory, shape, message = FLOATS[name]
    model, inputs = made(factory, shape)
    with pytest.raises(BuildError, match=message) as refused:
        quantize_model(model, inputs)
    assert "--allow-float-ops" in str(refused.value)
    quantized = quantize_model(model, inputs, "wi8_ai8_mixed")
    quantized.calibrate([inputs])
    assert quantized.scheme == "wi8_ai8_mixed" and len(quantized.float_steps) < len(quantized.steps) / 2
    require_agreement(model, quantized.eval(), inputs, tmp_path)


def test_embeddings_are_int8_and_read_whole_numbers(tmp_path):
    torch.manual_seed(0)
    model, inputs = Words().eval(), torch.randint(0, 300, (40, 1, 1, 12)).float()
    quantized = quantize_model(model, inputs)
    quantized.calibrate([inputs])
    assert quantized.scheme == "wi8_ai8" and quantized.network().tensors["input"].integer
    path = require_agreement(model, quantized.eval(), inputs, tmp_path)
    assert onnx.load(path).graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.INT32


def test_leave_that_is_not_needed_changes_nothing():
    model, inputs = made(*INTEGERS["tanh"])
    assert quantize_model(model, inputs, "wi8_ai8_mixed").scheme == "wi8_ai8"


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (nn.Sequential(conv(1, 4), nn.ConvTranspose2d(4, 4, 3, 2)), IMAGE, "must be its input times the stride"),
        (nn.Sequential(nn.Conv1d(3, 4, 1), nn.Softmax(1)), SIGNAL, "softmax over the classes"),
        (nn.Sequential(nn.Conv1d(3, 4, 1), nn.GRU(16, 4, batch_first=True)), SIGNAL, r"at 1 \(GRU\)"),
    ],
)
def test_what_has_no_form_at_all_is_named(model, shape, message):
    with pytest.raises(BuildError, match=message):
        quantize_model(model.eval(), torch.zeros(2, *shape), "wi8_ai8_mixed")
