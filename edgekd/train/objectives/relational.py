"""Learning how the inputs of a batch lie to each other in the teacher's features."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor

from edgekd.records import Relational
from edgekd.train.objectives.signals import FeaturePair, Signals


def relational(signals: Signals, objective: Relational) -> Tensor:
    """Relations within the batch, of the last pair of features.

    `distance_angle` (RKD: Park et al. 2019, arXiv:1904.05068, equations 5 to 9): w_d times the Huber loss between the
    pairwise distances of student and teacher, each over their mean, plus w_a times that between the cosines of the
    angles that triples span; on features averaged over place, (B, C_s) and (B, C_t).
    `similarity` (Tung, Mori 2019, arXiv:1907.09682, equation 4): |G_s - G_t|_F**2 / B**2, G the rows of F F' divided
    by their l2 norm, F of shape (B, C * H * W).
    """
    pair = signals.features[objective][-1]
    if objective.form == "similarity":
        return _similarity(pair)
    student, teacher = pair.student.mean((2, 3)), pair.teacher.mean((2, 3))
    distances = functional.huber_loss(_distances(student), _distances(teacher))
    angles = functional.huber_loss(_angles(student), _angles(teacher))
    return objective.distance_weight * distances + objective.angle_weight * angles


def _similarity(pair: FeaturePair) -> Tensor:
    student, teacher = (functional.normalize(f.flatten(1) @ f.flatten(1).T, dim=1) for f in pair)
    return (student - teacher).square().sum() / len(student) ** 2


def _distances(embedding: Tensor) -> Tensor:
    """Euclidean distances between all pairs i < j, over their mean: (B * (B - 1) / 2,)."""
    rows, columns = torch.triu_indices(len(embedding), len(embedding), offset=1, device=embedding.device)
    # The small constant keeps the square root's gradient finite where two inputs are embedded alike.
    distances = ((embedding[rows] - embedding[columns]).square().sum(1) + 1e-12).sqrt()
    return distances / distances.mean()


def _angles(embedding: Tensor) -> Tensor:
    """Cosines of the angles at each input between the directions to all others: (B, B, B)."""
    directions = functional.normalize(embedding[None] - embedding[:, None], dim=2)
    return directions @ directions.transpose(1, 2)
