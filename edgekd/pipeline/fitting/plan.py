"""`edgekd fit --dry-run`: what would be trained, at what predicted costs, and for how long."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import nn

from edgekd.core.architecture import Shape
from edgekd.core.search import short_schedule
from edgekd.nn.students import Student
from edgekd.pipeline.boards.timing import BoardAddress
from edgekd.pipeline.console import Progress
from edgekd.pipeline.fitting.prepare import Prepared, architecture_of, load, prepare
from edgekd.pipeline.settings import Settings
from edgekd.records import FitPlan, PlannedCandidate, Training
from edgekd.tasks import Task
from edgekd.train.examples import FORMAT, resolve_device, threads_for

WARM_STEPS, TIMED_STEPS = 2, 4
QAT_COST = 2.1
"""A step of quantization-aware training costs so many times one in float."""


def plan_all(all_settings: Sequence[Settings], board: BoardAddress | None, progress: Progress) -> tuple[FitPlan, ...]:
    """The plan of each profile. Nothing is trained and nothing written.

    Raises:
        as `edgekd.pipeline.fitting.fit.fit`, but for what only training can bring to light.
    """
    task, recipe = load(all_settings[0], progress)
    prepared = [prepare(one, recipe, task, board, progress) for one in all_settings]
    progress.stage("time", "a few training steps of each candidate")
    return tuple(_plan(one, task) for one in prepared)


def _plan(prepared: Prepared, task: Task) -> FitPlan:
    recipe, proposal = prepared.recipe, prepared.proposal
    device = resolve_device(recipe.device)
    schedule, count = recipe.distill.training, len(task.train)
    candidates = []
    for candidate in proposal.first:
        architecture = architecture_of(candidate, task)
        with threads_for(candidate.macs):
            step_s = seconds_per_step(Student(architecture), architecture.input_shape, schedule.batch_size, device)
        candidates.append(PlannedCandidate(candidate=candidate, training_s=step_s * steps_of(schedule, count)))
    teacher_s = 0.0
    if recipe.teacher is not None:
        step_s = seconds_per_step(task.teacher.build(), task.input_shape, recipe.teacher.batch_size, device)
        teacher_s = step_s * steps_of(recipe.teacher, count)
    longest = max(one.training_s for one in candidates)
    quantize = recipe.quantize.training
    quantize_s = 0.0
    if recipe.quantize.qat != "never":
        quantize_s = QAT_COST * longest * steps_of(quantize, count) / steps_of(schedule, count)
    halving = recipe.student.search == "halving"
    total = teacher_s + quantize_s + _students_s(prepared, [one.training_s for one in candidates])
    return FitPlan(
        profile=prepared.settings.profile.name,
        task=task.name,
        space=prepared.space.name,
        search=recipe.student.search,
        budget=prepared.settings.budget,
        considered=proposal.considered,
        feasible=len(proposal.feasible),
        candidates=tuple(candidates),
        short_runs=_short_runs(prepared) if halving else 0,
        teacher_s=teacher_s,
        quantize_s=quantize_s,
        quantize=recipe.quantize,
        total_s=total,
        findings=dict(prepared.findings),
    )


def _short_runs(prepared: Prepared) -> int:
    """At most so many: every size, and the pool."""
    space = prepared.search_space()
    return len(space.sizes[: space.grow]) + space.pool


def _students_s(prepared: Prepared, each_s: Sequence[float]) -> float:
    """Seconds for all students at most: whole sizes, or short runs and the largest whole; and the ablation."""
    recipe = prepared.recipe
    ablation = 0.0 if recipe.ablation == "none" else max(each_s)
    if recipe.student.search == "ladder":
        return sum(each_s) + ablation
    full = recipe.distill.training
    more = max(_short_runs(prepared) - len(each_s), 0) * sum(each_s) / len(each_s)
    return (sum(each_s) + more) * short_schedule(full).epochs / full.epochs + max(each_s) + ablation


def steps_of(schedule: Training, examples: int) -> int:
    """Steps of a whole schedule over so many examples."""
    return schedule.epochs * max(1, examples // min(schedule.batch_size, examples))


def seconds_per_step(model: nn.Module, shape: Shape, batch_size: int, device: torch.device) -> float:
    """Seconds that one training step takes here: forward, backward and update on noise."""
    model.to(device, memory_format=FORMAT).train()  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-4)
    inputs = torch.randn(batch_size, *shape, device=device).contiguous(memory_format=FORMAT)
    started = time.perf_counter()
    for step in range(WARM_STEPS + TIMED_STEPS):
        if step == WARM_STEPS:
            started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        model(inputs).float().square().mean().backward()
        optimizer.step()
    return (time.perf_counter() - started) / TIMED_STEPS
