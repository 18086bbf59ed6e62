"""Data as the training loop takes it, and forward passes over it."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.errors import ConfigurationError
from edgekd.nn.evaluation import evaluating
from edgekd.tasks import MetricName, Outputs, Split, student_inputs
from edgekd.train.metrics import Metric, metric_of

EVALUATION_BATCH = 512
FORMAT = torch.channels_last
"""Of models and inputs in memory: a third to a half faster to train on a CPU, signals of height 1 too (measured)."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Tensors of one split: inputs (N, C, H, W) float32, labels, teacher_logits (N, K) float32 or None.

    Labels are (N,) int64 of classes, -1 where there is none; else (N, K) float32, NaN where there is none: 0 and 1
    of independent labels, or values. `metric` judges a model by them.
    """

    inputs: Tensor
    labels: Tensor
    teacher_logits: Tensor | None = None
    outputs: Outputs = "classes"
    metric_name: MetricName | None = None

    @property
    def metric(self) -> Metric:
        """By what a model is judged."""
        return metric_of(self.outputs, self.metric_name)

    def __len__(self) -> int:
        return len(self.inputs)

    def digest(self) -> str:
        """A hash of shapes, labels and the teacher's logits, and of a sample of the inputs."""
        found = hashlib.sha256(repr(tuple(self.inputs.shape)).encode())
        parts = [self.labels, self.inputs[:: max(1, len(self) // 64)]]
        for part in parts if self.teacher_logits is None else [*parts, self.teacher_logits]:
            found.update(np.ascontiguousarray(part.cpu().numpy()).tobytes())
        return found.hexdigest()


SMALL_MACS = 500_000
"""Below this, a second thread costs more CPU time than it saves (5,000-parameter students: twice for nothing)."""


@contextlib.contextmanager
def threads_for(macs: int) -> Iterator[None]:
    """One torch thread while a small model is trained; as many as torch chose for a larger one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if macs < SMALL_MACS else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def examples_of(
    split: Split,
    shape: tuple[int, int, int],
    teacher_logits: Tensor | None = None,
    metric: MetricName | None = None,
) -> Examples:
    """A split at the window or resolution (C, H, W) of a student, with the teacher's logits where there are any."""
    inputs = torch.from_numpy(np.ascontiguousarray(student_inputs(split.inputs, shape)))
    return Examples(inputs, labels_of(split), teacher_logits, split.outputs, metric)


def labels_of(split: Split) -> Tensor:
    """A split's labels as the loop takes them: (N,) int64 of classes, else (N, K) float32."""
    kind = np.int64 if split.outputs == "classes" else np.float32
    return torch.from_numpy(np.ascontiguousarray(split.labels, dtype=kind))


def resolve_device(device: str) -> torch.device:
    """`auto` is CUDA where there is one, else the CPU.

    Raises:
        ConfigurationError: CUDA was asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError("device = 'cuda' but torch sees no CUDA device: use device = 'auto' or 'cpu'")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


@torch.no_grad()
def logits_of(model: nn.Module, inputs: Tensor, device: torch.device) -> Tensor:
    """Logits (N, K) float32 on the CPU, in evaluation mode, for inputs (N, C, H, W)."""
    with evaluating(model):
        parts = [
            model(batch.to(device).contiguous(memory_format=FORMAT)).float().cpu()
            for batch in torch.split(inputs, EVALUATION_BATCH)
        ]
    return torch.cat(parts)


def correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Per input, whether the class of the highest logit is the label: (N,) bool."""
    return logits.argmax(dim=1) == labels
