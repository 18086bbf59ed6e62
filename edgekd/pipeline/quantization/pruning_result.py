"""What `edgekd quantize --prune` reports."""

from __future__ import annotations

from edgekd.records import Estimate, Record


class Worth(Record):
    """What pruning saves: files of the scheme asked for, and their latency. None where it was not asked for or known.

    `latency_ratio` is the CPU time of an inference of the pruned file over one of the whole one, on one thread of this
    machine; `predicted_ms` are on `profile`.
    """

    file_bytes_before: int
    file_bytes: int
    latency_ratio: Estimate
    profile: str | None = None
    predicted_ms_before: float | None = None
    predicted_ms: float | None = None


class PruningReport(Record):
    """What was taken out and what it cost. Accuracies are on the validation split, a fraction.

    `accuracy_cut` is right after pruning, `accuracy` after training from there.
    """

    share: float
    parameters_before: int
    parameters: int
    left_alone: tuple[str, ...]
    worth: Worth
    accuracy_before: float
    accuracy_cut: float
    accuracy: float
    epochs: int
