"""Features inside a teacher: which layers, computed once where they can be stored, and paired with a student's."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from edgekd.errors import ConfigurationError
from edgekd.nn.evaluation import evaluating
from edgekd.records import Featured, Objective
from edgekd.train.examples import FORMAT
from edgekd.train.objectives.signals import FeaturePair
from edgekd.train.teachers import BlackBox

Shape = tuple[int, int, int]
PASS_BATCH = 256


@contextlib.contextmanager
def watching(model: nn.Module, names: Sequence[str] | None = None) -> Iterator[dict[str, Tensor]]:
    """Gives a dict that each forward pass fills with the feature maps (B, C, H, W) of the named layers.

    None watches all. The order is that in which the layers finish.
    """
    seen: dict[str, Tensor] = {}

    def hook(name: str) -> object:
        def keep(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.ndim == 4:
                seen.pop(name, None)
                seen[name] = output

        return keep

    modules = dict(model.named_modules())
    wanted = [name for name in modules if name] if names is None else list(names)
    handles = [modules[name].register_forward_hook(hook(name)) for name in wanted]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def layer_shapes(model: nn.Module, example: Tensor) -> dict[str, Shape]:
    """The shape (C, H, W) of every layer's feature map, for one input (1, C, H, W), in the order of computation.

    Layers that only pad are none.
    """
    with evaluating(model), watching(model) as seen:
        model(example)
    modules = dict(model.named_modules())
    return {
        name: (features.shape[1], features.shape[2], features.shape[3])
        for name, features in seen.items()
        if type(modules[name]).__module__ != nn.ZeroPad2d.__module__
    }


class TeacherFeatures:
    """A teacher's feature maps for the inputs of a split, by row.

    Args:
        teacher: a torch module with layers of its own.
        inputs: (N, C, H, W), as the teacher takes them.
        device: where the teacher runs.
        cache: a directory: the features are computed once for all students and kept there as float16, memory-mapped,
            under the hash of the inputs and the teacher. None recomputes each batch's in one pass.

    Raises:
        ConfigurationError: the teacher is a black box.
    """

    def __init__(self, teacher: nn.Module, inputs: Tensor, device: torch.device, cache: Path | None = None) -> None:
        self._teacher, self._inputs, self._device, self._cache = teacher.eval().to(device), inputs, device, cache
        self.shapes = layer_shapes(self._teacher, inputs[:1].to(device))
        if not self.shapes:
            raise ConfigurationError(
                f"this teacher shows no feature maps: {_why_none(self._teacher)}. Use response objectives (hinton, "
                "dkd, dist, logit_standardization), or bring the teacher as .pt weights of the task's own"
            )
        self._stored: dict[str, np.memmap] = {}

    @property
    def input_shape(self) -> Shape:
        """(C, H, W) that the teacher takes."""
        channels, height, width = self._inputs.shape[1:]
        return channels, height, width

    def select(self, names: Sequence[str]) -> None:
        """Keep to these layers, and where there is a cache compute or open it."""
        self._names = list(dict.fromkeys(names))
        if self._cache is not None:
            folder = self._cache / _identity(self._teacher, self._inputs)
            for name in self._names:
                if not (folder / f"{name}.npy").exists():
                    self._store(folder)
                    break
            self._stored = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in self._names}

    @torch.no_grad()
    def _pass(self, rows: Tensor | slice) -> dict[str, Tensor]:
        batch = self._inputs[rows].to(self._device).contiguous(memory_format=FORMAT)
        with watching(self._teacher, self._names) as seen:
            self._teacher(batch)
        return dict(seen)

    def _store(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        count = len(self._inputs)
        # A file has its name only once it is whole, so that an interrupted pass is not taken for a finished one.
        parts = {name: folder / f"{name}.npy.part" for name in self._names}
        stores = {
            name: np.lib.format.open_memmap(parts[name], "w+", np.float16, (count, *self.shapes[name]))
            for name in self._names
        }
        for start in range(0, count, PASS_BATCH):
            for name, features in self._pass(slice(start, start + PASS_BATCH)).items():
                # float16 ends at 65504; beyond it a feature would become infinite.
                stores[name][start : start + PASS_BATCH] = features.clamp(-6e4, 6e4).half().cpu().numpy()
        for name, store in stores.items():
            store.flush()
            parts[name].rename(folder / f"{name}.npy")

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """Features (B, C, H, W) float32 by layer, for the inputs of these rows (B,)."""
        if not self._stored:
            return self._pass(rows)
        index = rows.numpy()
        return {
            name: torch.from_numpy(np.asarray(store[index])).to(self._device).float()
            for name, store in self._stored.items()
        }


def _why_none(teacher: nn.Module) -> str:
    if any(isinstance(module, BlackBox) for module in teacher.modules()):
        return "an .onnx or .pt2 file is a black box that gives logits only"
    return "none of its layers gives maps (B, C, H, W)"


def _identity(teacher: nn.Module, inputs: Tensor) -> str:
    digest = hashlib.sha256(repr((tuple(inputs.shape), type(teacher).__name__)).encode())
    digest.update(np.ascontiguousarray(inputs.numpy()).data)
    for name, value in teacher.state_dict().items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(value.cpu().numpy()).tobytes())
    return digest.hexdigest()[:32]


def pair_layers(
    student: Mapping[str, Shape], teacher: Mapping[str, Shape], student_input: Shape, teacher_input: Shape
) -> tuple[tuple[str, str], ...]:
    """Pairs of layers whose maps are shrunk alike: the last layer at each resolution, nearest within a factor of 2.

    Args:
        student: shapes (C, H, W) by layer, in the order of computation.
        teacher: the same.
        student_input: (C, H, W) of the student's input.
        teacher_input: of the teacher's, which may have another window or resolution.

    Returns:
        Pairs (student layer, teacher layer), each layer at most once, in the student's order; at least one.
    """
    ours, theirs = _last_by_shrinking(student, student_input), _last_by_shrinking(teacher, teacher_input)
    candidates = sorted(
        (abs(math.log2(a / b)), -position, name, other)
        for position, (a, name) in enumerate(ours.items())
        for b, other in theirs.items()
    )
    pairs: dict[str, str] = {}
    for distance, _, name, other in candidates:
        if distance <= 1 and name not in pairs and other not in pairs.values():
            pairs[name] = other
    if not pairs:
        _, _, name, other = candidates[0]
        pairs[name] = other
    order = list(student)
    return tuple(sorted(pairs.items(), key=lambda pair: order.index(pair[0])))


def _last_by_shrinking(shapes: Mapping[str, Shape], entry: Shape) -> dict[float, str]:
    """The last layer at each shrinking: input places per place of the map, along the longer side."""
    found: dict[float, str] = {}
    for name, (_, height, width) in shapes.items():
        if height * width > 1:
            found[entry[2] / width if entry[2] >= entry[1] else entry[1] / height] = name
    return found or {float(max(entry[1:])): list(shapes)[-1]}


def aligned(features: Tensor, place: tuple[int, int], student_input: Shape, teacher_input: Shape) -> Tensor:
    """A teacher's map (B, C, H, W) at a student's place (height, width).

    A student that sees the last part of a signal is shown the last part of the map.
    """
    if student_input[1] == 1 and student_input[2] < teacher_input[2]:
        kept = max(1, round(features.shape[3] * student_input[2] / teacher_input[2]))
        features = features[:, :, :, -kept:]
    return features if features.shape[2:] == place else functional.adaptive_avg_pool2d(features, place)


class FeatureLink:
    """Holds a student beside a teacher: pairs, and the regressors of `fitnet`, which end with the training.

    Args:
        objectives: those that need features.
        student: the module in training.
        example: one input of the student (1, C, H, W) on its device.
        teacher: the teacher's features.

    Raises:
        ConfigurationError: a layer that does not exist; lists those that do.
    """

    def __init__(
        self, objectives: Sequence[Objective], student: nn.Module, example: Tensor, teacher: TeacherFeatures
    ) -> None:
        self._teacher = teacher
        shapes = layer_shapes(student, example)
        channels, height, width = example.shape[1:]
        self._entry: Shape = (channels, height, width)
        self.pairs: dict[Objective, tuple[tuple[str, str], ...]] = {}
        for objective in objectives:
            assert isinstance(objective, Featured)
            named = objective.layers
            self.pairs[objective] = named or pair_layers(shapes, teacher.shapes, self._entry, teacher.input_shape)
        _require_layers(self.pairs, shapes, teacher.shapes)
        self.regressors = nn.ModuleDict()
        for position, (objective, pairs) in enumerate(self.pairs.items()):
            if objective.kind == "fitnet":
                self.regressors[str(position)] = nn.ModuleList(
                    nn.Conv2d(shapes[ours][0], teacher.shapes[theirs][0], 1) for ours, theirs in pairs
                )
        self.regressors.to(example.device)
        self.student_layers = list(dict.fromkeys(ours for pairs in self.pairs.values() for ours, _ in pairs))
        teacher.select([theirs for pairs in self.pairs.values() for _, theirs in pairs])

    def features(self, seen: Mapping[str, Tensor], rows: Tensor) -> dict[Objective, tuple[FeaturePair, ...]]:
        """The pairs of feature maps by objective, for the rows (B,) of the batch whose student features were seen."""
        from_teacher = self._teacher.batch(rows)
        result = {}
        for position, (objective, pairs) in enumerate(self.pairs.items()):
            found = []
            for index, (ours, theirs) in enumerate(pairs):
                student = seen[ours]
                teacher = aligned(
                    from_teacher[theirs],
                    (student.shape[2], student.shape[3]),
                    self._entry,
                    self._teacher.input_shape,
                )
                if str(position) in self.regressors:
                    student = self.regressors[str(position)][index](student)  # type: ignore[index]
                found.append(FeaturePair(student.float(), teacher.float()))
            result[objective] = tuple(found)
        return result


def _require_layers(
    pairs: Mapping[Objective, Sequence[tuple[str, str]]], student: Mapping[str, Shape], teacher: Mapping[str, Shape]
) -> None:
    """Refuse layers that do not exist, with those that do once for each model."""
    problems = []
    for whose, position, shapes in (("student", 0, student), ("teacher", 1, teacher)):
        wrong = [
            f"distill.objectives, {objective.kind}: the {whose} has no layer {pair[position]!r} with a feature map"
            for objective, chosen in pairs.items()
            for pair in chosen
            if pair[position] not in shapes
        ]
        if wrong:
            problems += [*wrong, f"the {whose} has {', '.join(shapes)}"]
    if problems:
        raise ConfigurationError("\n".join(problems))
