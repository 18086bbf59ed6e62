"""Inputs made from what a teacher remembers of its own: by inversion, or by a generator trained against it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from edgekd.errors import ConfigurationError
from edgekd.nn.evaluation import evaluating
from edgekd.records import DataFree
from edgekd.train.teachers import BlackBox

Shape = tuple[int, int, int]
INVERTED_AT_ONCE = 256
GENERATED_AT_ONCE = 128


@contextlib.contextmanager
def statistics_distances(teacher: nn.Module) -> Iterator[list[Tensor]]:
    """Gives a list that each forward pass appends to: how far a batch is from each batch norm's running statistics.

    Squared differences of the channels' means and variances, mean over the channels, in units of the mean running
    variance (Yin et al. 2020, arXiv:1912.08795, equation 4).

    Raises:
        ConfigurationError: the teacher has no batch norm.
    """
    norms = [module for module in teacher.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        black = any(isinstance(module, BlackBox) for module in teacher.modules())
        why = (
            "the teacher is a black box (.onnx, .pt2), whose batch norms cannot be seen: bring .pt weights of the "
            "task's own, or let the task train one"
            if black
            else "the teacher has no batch norm, whose statistics inputs are made from"
        )
        raise ConfigurationError(f"distill.regime = 'data_free': {why}")
    distances: list[Tensor] = []

    def compare(module: nn.Module, args: tuple[Tensor, ...], _output: object) -> None:
        assert isinstance(module, nn.BatchNorm2d) and module.running_mean is not None
        assert module.running_var is not None
        variance, mean = torch.var_mean(args[0], dim=(0, 2, 3), correction=0)
        scale = module.running_var.mean() + 1e-6
        distances.append(
            ((mean - module.running_mean).square().mean() / scale)
            + ((variance - module.running_var).square().mean() / scale**2)
        )

    handles = [norm.register_forward_hook(compare) for norm in norms]
    try:
        yield distances
    finally:
        for handle in handles:
            handle.remove()


def roughness(inputs: Tensor) -> Tensor:
    """Mean squared difference of neighbouring places of (N, C, H, W), summed over the axes."""
    total = inputs.new_zeros(())
    for axis in (2, 3):
        if inputs.shape[axis] > 1:
            total = total + inputs.diff(dim=axis).square().mean()
    return total


def invert(teacher: nn.Module, shape: Shape, options: DataFree, seed: int, device: torch.device) -> Tensor:
    """Inputs (N, C, H, W) whose features have the statistics the teacher's batch norms remember.

    (DeepInversion: Yin et al. 2020, arXiv:1912.08795, equations 2 to 4, without the competition term.) Minimises the
    cross-entropy with a drawn class, plus the squared distances of the batch's channel means and variances to the
    running ones, plus the mean squared difference of neighbouring places.

    Raises:
        ConfigurationError: the teacher has no batch norm.
    """
    teacher.eval()
    generator = torch.Generator().manual_seed(seed)
    parts = []
    with statistics_distances(teacher) as distances:
        for start in range(0, options.inputs, INVERTED_AT_ONCE):
            count = min(INVERTED_AT_ONCE, options.inputs - start)
            inputs = torch.randn(count, *shape, generator=generator).to(device).requires_grad_()
            optimizer = torch.optim.Adam([inputs], lr=options.learning_rate)
            with torch.no_grad():
                classes = teacher(inputs[:1]).shape[1]
            wanted = torch.randint(classes, (count,), generator=generator).to(device)
            for _ in range(options.iterations):
                distances.clear()
                loss = functional.cross_entropy(teacher(inputs), wanted)
                loss = loss + options.statistics_weight * torch.stack(distances).mean()
                loss = loss + options.smoothness_weight * roughness(inputs)
                (inputs.grad,) = torch.autograd.grad(loss, inputs)
                optimizer.step()
            parts.append(inputs.detach().cpu())
    return torch.cat(parts)


class Generator(nn.Module):
    """Noise (N, Z) to inputs (N, C, H, W), whose channels start with mean 0 and spread 1 over the batch.

    A dense layer to a quarter of the size, then twice: enlarge, convolve, normalise. Signals have height 1 throughout.
    """

    def __init__(self, noise: int, shape: Shape, width: int = 48) -> None:
        super().__init__()
        channels, height, width_out = shape
        kernel = (3 if height > 1 else 1, 3 if height > 1 else 5)
        padding = (kernel[0] // 2, kernel[1] // 2)
        sizes = [(math.ceil(height / share), math.ceil(width_out / share)) for share in (4, 2, 1)]
        self._start = (width, *sizes[0])
        self.entry = nn.Linear(noise, math.prod(self._start))
        layers: list[nn.Module] = [nn.BatchNorm2d(width)]
        for size in sizes[1:]:
            layers += [
                nn.Upsample(size),
                nn.Conv2d(width, width, kernel, padding=padding),
                nn.BatchNorm2d(width),
                nn.LeakyReLU(0.2),
            ]
        layers += [nn.Conv2d(width, channels, kernel, padding=padding), nn.BatchNorm2d(channels)]
        self.layers = nn.Sequential(*layers)

    def forward(self, noise: Tensor) -> Tensor:
        """Inputs."""
        made: Tensor = self.layers(self.entry(noise).unflatten(1, self._start))
        return made


class GeneratorTraining:
    """A generator in training against a teacher, and where a student takes part, against the two's agreement.

    Each step minimises, over a batch of made inputs x with t = teacher(x):
    `onehot_weight` times the cross-entropy of t with its own choice, less `entropy_weight` times the entropy of the
    mean of softmax(t) (both DAFL: Chen et al. 2019, arXiv:1904.01186), plus `statistics_weight` times the distance to
    the batch norms' statistics, plus `smoothness_weight` times the roughness; with a student s, less
    `disagreement_weight` times mean |t - s(x)| (DFAD: Fang et al. 2019, arXiv:1912.11006).

    Args:
        teacher: from (B, *native) to logits; it does not change.
        native: (C, H, W) that the teacher takes.
        shape: (C, H, W) that the student takes.
        options: weights and sizes.
        seed: of weights and noise.
        device: where it runs.

    Raises:
        ConfigurationError: the teacher has no batch norm.
    """

    def __init__(
        self, teacher: nn.Module, native: Shape, shape: Shape, options: DataFree, seed: int, device: torch.device
    ) -> None:
        with statistics_distances(teacher):
            self._teacher = teacher.eval()
        self._options, self._shape, self._device = options, shape, device
        torch.manual_seed(seed)
        self._generator = Generator(options.noise_size, native).to(device)
        self._optimizer = torch.optim.Adam(self._generator.parameters(), lr=options.generator_learning_rate)
        self._noise = torch.Generator().manual_seed(seed)
        self._terms: dict[str, float] = {}

    def _made(self, count: int) -> Tensor:
        noise = torch.randn(count, self._options.noise_size, generator=self._noise)
        made: Tensor = self._generator(noise.to(self._device))
        return made

    def step(self, student: nn.Module | None = None) -> None:
        """One step of the generator."""
        options, made = self._options, self._made(GENERATED_AT_ONCE)
        with statistics_distances(self._teacher) as distances:
            logits = self._teacher(made)
        mean = logits.softmax(1).mean(0)
        terms = {
            "one-hot": functional.cross_entropy(logits, logits.argmax(1)),
            "entropy": -(mean * mean.clamp(min=1e-12).log()).sum(),
            "statistics": torch.stack(distances).mean(),
        }
        loss = options.onehot_weight * terms["one-hot"] - options.entropy_weight * terms["entropy"]
        loss = loss + options.statistics_weight * terms["statistics"] + options.smoothness_weight * roughness(made)
        if student is not None:
            with evaluating(student):
                terms["disagreement"] = (logits - student(self._as_student_sees(made))).abs().mean()
            loss = loss - options.disagreement_weight * terms["disagreement"]
        parameters = list(self._generator.parameters())
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        self._optimizer.step()
        self._terms = {name: float(value.detach()) for name, value in terms.items()}

    def said(self) -> str:
        """The last step's terms, for people."""
        return ", ".join(f"{name} {value:.3f}" for name, value in self._terms.items())

    @torch.no_grad()
    def sample(self, count: int) -> Tensor:
        """Made inputs (count, C, H, W) on the CPU, as the teacher takes them."""
        parts = [self._made(GENERATED_AT_ONCE).cpu() for _ in range(-(-count // GENERATED_AT_ONCE))]
        return torch.cat(parts)[:count]

    def batch(self, student: nn.Module, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Fresh inputs (count, *shape) for the student, the teacher's choices (count,) and its logits (count, K).

        Where disagreement has weight, the generator first takes a step against the student.
        """
        if self._options.disagreement_weight > 0:
            self.step(student)
        with torch.no_grad():
            made = self._made(count)
            logits = self._teacher(made)
            return self._as_student_sees(made), logits.argmax(1), logits

    def _as_student_sees(self, made: Tensor) -> Tensor:
        """As `edgekd.tasks.student_inputs`, with a gradient."""
        height, width = self._shape[1:]
        if made.shape[2:] == (height, width):
            return made
        if made.shape[2] == height == 1:
            return made[:, :, :, -width:]
        return functional.interpolate(made, (height, width), mode="bilinear", antialias=True)
