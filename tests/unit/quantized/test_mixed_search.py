"""Which layers are kept in float: the worst, as few as the accuracy needs."""

import copy

import pytest
import torch
from torch import nn

from edgekd.nn.quantized.mixed import keep_worst_in_float
from edgekd.nn.quantized.model import quantize_model


@pytest.fixture(scope="module")
def inputs():
    return torch.randn(256, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def hurt(inputs):
    """A network one of whose tensors has channels of very different sizes, so that eight bits lose the small ones."""
    torch.manual_seed(1)
    convolutions = [nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, bias=False), nn.Conv2d(8, 8, 1)]
    with torch.no_grad():
        sizes = torch.logspace(0, 4, 8)
        convolutions[1].weight.mul_(sizes[:, None, None, None])
        convolutions[2].weight.div_(sizes[None, :, None, None])
    model = nn.Sequential(
        *(convolutions[0], nn.ReLU(), convolutions[1], nn.ReLU(), convolutions[2], nn.Flatten(), nn.Linear(128, 6)),
    ).eval()
    quantized = quantize_model(model, inputs)
    quantized.calibrate([inputs])
    return model, quantized.eval()


def agreement(model, inputs):
    with torch.no_grad():
        wanted = model(inputs).argmax(1)
        return lambda trial: float((trial(inputs).argmax(1) == wanted).float().mean())


def test_the_worst_layer_and_its_reader_are_kept_and_accuracy_holds(hurt, inputs):
    model, quantized = hurt
    before, measure = copy.deepcopy(quantized.state_dict()), agreement(model, inputs)
    assert measure(quantized) < 0.95
    found = keep_worst_in_float(quantized, inputs, measure, 0.96)
    assert found.holds and found.accuracy >= 0.96 and found.accuracy == measure(found.model)
    assert found.model.float_steps == {"001_conv", "002_conv"}
    first, *_ = found.additions
    assert first.accuracy_before < first.accuracy and first.divergence < first.divergence_before
    assert sum(addition.more_bytes for addition in found.additions) == 3 * (8 * 8 * 9 + 8 * 8) - 4 * 16
    assert not quantized.float_steps and all(
        torch.equal(before[key], value) for key, value in quantized.state_dict().items()
    )


class Added(nn.Module):
    """Two branches of channels of very different sizes, added: in float only together do they stop losing the small."""

    def __init__(self):
        super().__init__()
        self.one, self.other, self.back = (nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1))
        sizes = torch.logspace(0, 4, 8)
        with torch.no_grad():
            self.one.weight.mul_(sizes[:, None, None, None])
            self.other.weight.mul_(sizes[:, None, None, None])
            self.back.weight.div_(sizes[None, :, None, None])
        self.head = nn.Sequential(nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 6))

    def forward(self, inputs):
        return self.head(self.back(self.one(inputs) + self.other(inputs)))


def test_layers_that_only_help_together_are_found_together(inputs):
    torch.manual_seed(2)
    model = Added().eval()
    quantized = quantize_model(model, inputs)
    quantized.calibrate([inputs])
    measure = agreement(model, inputs)
    before = measure(quantized.eval())
    found = keep_worst_in_float(quantized, inputs, measure, 0.95)
    assert before < 0.9 and found.holds
    names = {step.place for step in found.model.steps if step.key in found.model.float_steps}
    assert "back" in names and names & {"one", "other"} and len(names) <= 4


def test_nothing_is_kept_where_accuracy_holds_already(hurt, inputs):
    model, quantized = hurt
    found = keep_worst_in_float(quantized, inputs, agreement(model, inputs), 0.0)
    assert found.holds and not found.additions and found.model.scheme == "wi8_ai8"


def test_the_search_ends_where_accuracy_cannot_be_reached(hurt, inputs):
    model, quantized = hurt
    found = keep_worst_in_float(quantized, inputs, agreement(model, inputs), 1.1)
    assert not found.holds and found.additions
    assert len(found.model.float_steps) <= round(0.5 * len(quantized.steps))
