import pytest
import torch
from torch import nn

from edgekd.nn.evaluation import device_of, evaluating


def test_each_part_of_a_model_gets_its_own_mode_back():
    model = nn.Sequential(nn.BatchNorm1d(3).eval(), nn.Dropout())
    assert model.training
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == [True, False, True]


def test_the_modes_come_back_behind_an_error():
    model = nn.Sequential(nn.Dropout())
    with pytest.raises(ValueError, match="inside"), evaluating(model):
        raise ValueError("inside")
    assert model[0].training


def test_a_model_without_parameters_is_on_the_cpu():
    assert device_of(nn.ReLU()) == torch.device("cpu")
    assert device_of(nn.BatchNorm1d(2, affine=False)) == torch.device("cpu")
