"""Learning from layers inside the teacher."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor

from edgekd.records import Attention, FitNet
from edgekd.train.objectives.signals import Signals


def fitnet(signals: Signals, objective: FitNet) -> Tensor:
    """Hints (FitNets: Romero et al. 2015, arXiv:1412.6550, equation 3, as a mean instead of a halved sum).

    Mean over the pairs of mean((r(F_s) - F_t)**2), both (B, C, H, W); r is the regressor that the pair has been
    through. With `normalize`, each channel of F_t first has mean 0 and standard deviation 1 over the batch.
    """
    terms = []
    for student, teacher in signals.features[objective]:
        if objective.normalize:
            spread, mean = torch.std_mean(teacher, dim=(0, 2, 3), keepdim=True, correction=0)
            teacher = (teacher - mean) / (spread + 1e-5)
        terms.append(functional.mse_loss(student, teacher))
    return torch.stack(terms).mean()


def attention(signals: Signals, objective: Attention) -> Tensor:
    """Attention transfer (Zagoruyko, Komodakis 2017, arXiv:1612.03928, equation 2, squared).

    Mean over pairs and batch of |a(F_s) - a(F_t)|**2, where a is the mean over channels of |F|**p, flattened to
    (B, H * W) and divided by its l2 norm.
    """
    terms = []
    for student, teacher in signals.features[objective]:
        difference = _attention_map(student, objective.power) - _attention_map(teacher, objective.power)
        terms.append(difference.square().sum(1).mean())
    return torch.stack(terms).mean()


def _attention_map(features: Tensor, power: float) -> Tensor:
    strength = features.square() if power == 2 else features.abs().pow(power)
    return functional.normalize(strength.mean(1).flatten(1), dim=1)
