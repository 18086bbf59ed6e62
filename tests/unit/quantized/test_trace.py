import pytest
import torch
from torch import nn

from edgekd.errors import BuildError
from edgekd.nn.quantized.model import quantize_model
from edgekd.nn.quantized.rewrite import simplify
from edgekd.nn.quantized.trace import trace

EXAMPLE = torch.zeros(1, 3, 8, 8)


def kinds(model, example=EXAMPLE):
    return [(operation.kind, operation.activation) for operation in simplify(trace(model, example)).operations]


@pytest.mark.parametrize("name", ["image_student", "signal_student"])
def test_folded_network_computes_what_the_module_does(name, request):
    student = request.getfixturevalue(name)
    inputs = torch.randn(8, *student.architecture.input_shape)
    folded = quantize_model(student, inputs, "fp32").eval()
    with torch.no_grad():
        torch.testing.assert_close(folded(inputs), student(inputs), atol=1e-5, rtol=1e-4)


def test_batch_norms_activations_and_flatten_disappear(signal_student):
    found = kinds(signal_student, torch.zeros(1, *signal_student.architecture.input_shape))
    assert {kind for kind, _ in found} == {"conv", "global_average_pool", "linear"}
    assert found[0] == ("conv", "relu")


def test_an_activation_is_not_fused_where_the_raw_value_is_read_too():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, inputs):
            raw = self.conv(inputs)
            return (raw + torch.relu(raw)).mean((2, 3))

    assert kinds(Both())[:3] == [("conv", "none"), ("conv", "relu"), ("add", "none")]


def test_a_batch_norm_without_a_convolution_becomes_a_depthwise_one():
    model = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    model[1].running_mean.uniform_(-1, 1)
    model[1].running_var.uniform_(0.5, 2)
    inputs = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(quantize_model(model, inputs, "fp32")(inputs), model(inputs), atol=1e-5, rtol=1e-4)


def test_an_unsupported_operator_is_named_with_its_place():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.Softshrink()), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(BuildError, match=r"aten\.softshrink\.default at 1\.0 \(Softshrink\)"):
        quantize_model(model, EXAMPLE)


@pytest.mark.parametrize(
    ("pool", "named"),
    [(nn.AvgPool2d(2, ceil_mode=True), "ceil_mode=True"), (nn.AvgPool2d(3, 1, 1, False, False), "count_include_pad")],
)
def test_a_mean_whose_padding_does_not_count_is_refused_by_its_options_name(pool, named):
    with pytest.raises(BuildError, match=named):
        trace(nn.Sequential(pool, nn.Flatten()), torch.zeros(1, 2, 5, 5))


def test_control_flow_on_values_is_refused_with_the_reason():
    class Branch(nn.Module):
        def forward(self, inputs):
            return inputs if inputs.sum() > 0 else -inputs

    with pytest.raises(BuildError, match="Branch cannot be traced"):
        quantize_model(Branch(), EXAMPLE)


def test_a_forward_that_raises_is_a_build_error():
    with pytest.raises(BuildError, match="cannot be traced"):
        quantize_model(nn.Conv2d(5, 4, 1), EXAMPLE)


def test_two_outputs_are_refused():
    class Two(nn.Module):
        def forward(self, inputs):
            return torch.relu(inputs), torch.relu(inputs + inputs)

    with pytest.raises(BuildError, match="2 outputs"):
        quantize_model(Two(), EXAMPLE)


def test_the_module_itself_is_left_as_it_was(image_student):
    before = {name: tensor.clone() for name, tensor in image_student.state_dict().items()}
    image_student.train()
    quantize_model(image_student, torch.zeros(1, *image_student.architecture.input_shape))
    assert image_student.training
    image_student.eval()
    assert all(torch.equal(before[name], tensor) for name, tensor in image_student.state_dict().items())
