"""What a regime or a caller adds to the training loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from edgekd.train.features import TeacherFeatures

ChooseRows = Callable[[int, int, torch.Generator], Tensor]
ChangeInputs = Callable[[nn.Module, Tensor, Tensor, Tensor | None], Tensor]
Synthesise = Callable[[nn.Module, int], tuple[Tensor, Tensor, Tensor]]


@dataclass(frozen=True)
class Additions:
    """What a regime adds to the loop; with none of it this is training on examples.

    Args:
        features: the teacher's layers, for objectives that need them.
        choose_rows: (epoch, epochs, generator) to the rows of the epoch in their order; all, shuffled, by default.
        change_inputs: (model, inputs, labels, teacher logits) of a batch to the inputs the student is shown.
        synthesise: (model, how many) to inputs, labels and teacher logits that stand in for those of every batch; a run
            with it is not resumed.
        compared: the part of the model whose layers are held beside the teacher's; all of it by default.
        own_average_teaches: the teacher's logits are those of the run's own averaged weights.
        on_epoch: told (epochs done, validation accuracy) after each epoch; what it raises ends the run.
    """

    features: TeacherFeatures | None = None
    compared: nn.Module | None = None
    choose_rows: ChooseRows | None = None
    change_inputs: ChangeInputs | None = None
    synthesise: Synthesise | None = None
    own_average_teaches: bool = False
    on_epoch: Callable[[int, float], None] | None = None


@dataclass(frozen=True)
class Checkpointing:
    """Where the run keeps where it stands, and how often at most; a run that finds its checkpoint goes on from it.

    `key` is whatever else the run's result depends on and the loop cannot see: a regime and its options.
    """

    path: Path
    interval_s: float = 5.0
    key: str = ""
