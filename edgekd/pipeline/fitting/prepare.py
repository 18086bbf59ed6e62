"""What is settled before anything is trained: the data, the candidates that fit, and what a board says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from edgekd.core.architecture import Architecture, operator_list
from edgekd.core.costs import latency_model_for
from edgekd.core.latency_model import predict
from edgekd.core.propose import Proposal, ladder, propose
from edgekd.core.search import Search
from edgekd.core.spaces import StudentSpace
from edgekd.errors import ConfigurationError, InfeasibleBudgetError
from edgekd.pipeline.boards.deployed import with_deployed_design
from edgekd.pipeline.boards.timing import BoardAddress
from edgekd.pipeline.console import Progress
from edgekd.pipeline.distillation.teaching import check_teaching
from edgekd.pipeline.distillation.tune import choice_of, require_tuner
from edgekd.pipeline.fitting.board_check import BoardCheck, Checked, check_on_board
from edgekd.pipeline.fitting.search import SearchSpace, first_asked
from edgekd.pipeline.fitting.user_space import Int8Space, UserSpace, space_of
from edgekd.pipeline.quantization.options import require_consistent
from edgekd.pipeline.settings import Settings, with_task_schedules
from edgekd.records import LATENCY_PERCENTILES, Candidate, DeviceProfile, Recipe
from edgekd.tasks import Task, load_task
from edgekd.train.objectives import OUTPUTS_IN_WORDS


@dataclass(frozen=True)
class Prepared:
    """A profile's fit before training.

    `findings`: by stage, what the report is to keep of it; `board`: times what the search comes upon later.
    """

    settings: Settings
    recipe: Recipe
    task: Task
    space: StudentSpace
    proposal: Proposal
    findings: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    board: BoardCheck | None = None

    def search_space(self) -> SearchSpace:
        """What a search chooses from: every candidate that meets the budget and that the board did not rule out."""
        missed = self.findings.get("board-check", {}).get("missed", ())
        left = [one for one in self.proposal.feasible if one.label not in missed]
        return _search_space(self.space, self.recipe, self.task, left)


def _search_space(space: StudentSpace, recipe: Recipe, task: Task, candidates: Sequence[Candidate]) -> SearchSpace:
    native, student = task.input_shape, recipe.student
    sizes = ladder(space, native, candidates)
    return SearchSpace(space.dimensions(native), sizes, candidates, student.grow, student.pool, recipe.seed)


def architecture_of(candidate: Candidate, task: Task) -> Architecture:
    """A candidate's network for a task."""
    return space_of(candidate.space).architecture(candidate.choices, task.input_shape, len(task.classes))


def load(settings: Settings, progress: Progress) -> tuple[Task, Recipe]:
    """The task's data, and the recipe with the schedules that the task suggests.

    Raises:
        ConfigurationError: the task or its data cannot be used, or the recipe's objectives or kind of quantization.
    """
    require_consistent(settings.recipe.quantize.scheme, settings.recipe.quantize)
    progress.stage("data", settings.recipe.task.name)
    task = load_task(settings.recipe.task.name, settings.recipe.task.options)
    if task.outputs != "classes":
        raise ConfigurationError(
            f"task {task.name}: the outputs are {OUTPUTS_IN_WORDS[task.outputs]}, and `edgekd fit` quantizes, "
            "converts and judges classes only so far: `edgekd distill --save` trains the student, "
            "without int8 files or a budget"
        )
    recipe = with_deployed_design(with_task_schedules(settings.recipe, task))
    check_teaching(recipe, task)
    require_tuner(choice_of(recipe.distill))
    progress.update(f"{len(task.train)} train, {len(task.validation)} validation, {len(task.test)} test inputs")
    return task, recipe


def prepare(settings: Settings, recipe: Recipe, task: Task, board: BoardAddress | None, progress: Progress) -> Prepared:
    """Propose the candidates of one profile, and check them on its board where one is given.

    Raises:
        InfeasibleBudgetError: no student is predicted, or on the board measured, to meet the budget.
    """
    recipe = recipe.model_copy(update={"profile": settings.recipe.profile, "budget": settings.budget})
    space = space_of(task.default_space if recipe.student.space == "auto" else recipe.student.space)
    progress.stage("propose", f"{space.name} under the budget of {settings.profile.name}")
    _warn_of_power(settings, progress)

    tried = Int8Space(space) if isinstance(space, UserSpace) and not recipe.quantize.allow_float_ops else space

    def proposed(profile: DeviceProfile) -> Proposal:
        student, budget = recipe.student, settings.budget
        found = propose(tried, task.input_shape, len(task.classes), profile, budget, student.fixed, student.grow)
        if student.search == "ladder":
            return found
        among = _search_space(tried, recipe, task, found.feasible)
        spread = Search(among.dimensions, among.candidates, among.seed).ask(first_asked(among.pool))
        first = {one.label: one for one in (*among.sizes[: among.grow], *spread)}.values()
        return Proposal(found.feasible, tuple(sorted(first, key=lambda one: one.macs)), found.considered)

    check: BoardCheck | None = None
    if board is None:
        proposal = proposed(settings.profile)
        findings = {"int8-pays": _int8_predicted(settings.profile, proposal, task)}
    else:
        checked = check_on_board(
            _first(settings.profile, proposed),
            settings.profile,
            settings.budget,
            lambda candidate: architecture_of(candidate, task),
            proposed,
            board,
            progress,
        )
        proposal, settings, check = checked.proposal, replace(settings, profile=checked.profile), checked.check
        findings = {"board-check": check.findings(), "int8-pays": _int8_measured(checked)}
    progress.update(
        f"{len(proposal.feasible)} of {proposal.considered} students fit; {len(proposal.first)} to try first"
    )
    if findings["int8-pays"].get("faster") is False:
        progress.warn(findings["int8-pays"]["reason"])
    _warn_of_unpredicted(settings, proposal, progress)
    return Prepared(settings, recipe, task, space, proposal, findings, check)


def _first(profile: DeviceProfile, proposed: Any) -> Proposal:
    """What to measure first: candidates that surely fit, or where the interval is too wide for any, that may fit."""
    try:
        found: Proposal = proposed(profile)
    except InfeasibleBudgetError:
        sure = tuple(model.model_copy(update={"half_width": 0.0}) for model in profile.latency_models)
        found = proposed(profile.model_copy(update={"latency_models": sure}))
    return found


def _warn_of_power(settings: Settings, progress: Progress) -> None:
    """Say before training, not after, that a power or energy limit cannot be judged on this board."""
    limits = [name for name in ("energy_mj", "power_w") if getattr(settings.budget, name) is not None]
    sensors = [sensor for sensor in settings.profile.sensors if sensor.measures == "power"]
    if limits and not sensors:
        progress.warn(
            f"{settings.profile.name} has no power sensor: {' and '.join(limits)} stay not measured unless an external "
            f"meter is used at deploy"
        )
    elif limits and all(sensor.grade in ("C", "D") for sensor in sensors):
        grades = ", ".join(sorted({str(sensor.grade) for sensor in sensors}))
        progress.warn(
            f"{settings.profile.name}'s power sensor is of grade {grades}: {' and '.join(limits)} cannot be met on it"
        )


def _warn_of_unpredicted(settings: Settings, proposal: Proposal, progress: Progress) -> None:
    """Say which latency limits restrict nothing, since what is in int8 and float is predicted by models of both."""
    limits = [name for name in settings.budget.constraints() if name in LATENCY_PERCENTILES or name == "fps"]
    unknown = [name for name in limits if any(name not in one.predicted for one in proposal.first)]
    if unknown and latency_model_for(settings.profile, "wi8_ai8") is not None:
        progress.warn(
            f"{settings.profile.name} has no latency model of fp32, so nothing predicts {' and '.join(unknown)} of "
            "students with layers in float: only a board can decide"
        )


def _int8_measured(checked: Checked) -> dict[str, Any]:
    int8, fp32 = checked.int8_ms, checked.fp32_ms
    if int8 is None or fp32 is None:
        return {}
    faster = int8 < fp32
    reason = f"int8 takes {int8:.4g} ms and fp32 {fp32:.4g} ms on this board: int8 is {'' if faster else 'not '}faster"
    return {"basis": "measured", "int8_ms": int8, "fp32_ms": fp32, "faster": faster, "reason": reason}


def _int8_predicted(profile: DeviceProfile, proposal: Proposal, task: Task) -> dict[str, Any]:
    """Whether int8 is predicted to be faster than fp32 for the largest size; unknown where the intervals overlap."""
    operators = operator_list(architecture_of(proposal.first[-1], task))
    int8, fp32 = (latency_model_for(profile, scheme) for scheme in ("wi8_ai8", "fp32"))
    if int8 is None or fp32 is None:
        return {"basis": "predicted", "faster": None, "reason": "the profile has no latency model of both schemes"}
    ours, theirs = predict(int8, operators), predict(fp32, operators)
    faster = True if ours.high < theirs.low else False if ours.low > theirs.high else None
    believed = {True: "int8 is faster", False: "int8 is not faster", None: "the intervals overlap: measure it"}[faster]
    claims = [one for one in profile.acceleration if one.scheme == "wi8_ai8" and one.runtime == int8.runtime]
    claim = (
        f"; by the profile it is{'' if claims[0].faster_than_fp32 else ' not'} ({claims[0].source})" if claims else ""
    )
    return {
        "basis": "predicted",
        "int8_ms": ours.value,
        "fp32_ms": theirs.value,
        "faster": faster,
        "reason": f"predicted {ours.value:.4g} ms in int8, {theirs.value:.4g} in fp32; {believed}{claim}",
    }
