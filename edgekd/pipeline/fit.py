"""`edgekd fit`: profile, budget and task in; a distilled int8 student and its report out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from edgekd.core.architecture import Architecture, operator_list
from edgekd.load import dump_toml
from edgekd.nn.students import Student, example_input
from edgekd.pipeline.board_timing import BoardAddress
from edgekd.pipeline.console import Progress
from edgekd.pipeline.evaluation import build_files, evaluate, write_test_inputs
from edgekd.pipeline.prepare import Prepared, architecture_of, load, prepare
from edgekd.pipeline.quantizing import Allowance, FloatModel, Rounded, quantize_float
from edgekd.pipeline.reporting import fit_report, write
from edgekd.pipeline.search import Selected, Selection
from edgekd.pipeline.settings import Settings
from edgekd.pipeline.stages import Made, StageRunner, TrainedModel
from edgekd.records import Candidate, Objective, Report, Training
from edgekd.store import RunDirectory
from edgekd.tasks import Task
from edgekd.train.distill import HARD_ONLY, teacher_pass, train_model
from edgekd.train.examples import correct, examples_of, logits_of, resolve_device, threads_for

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitOptions:
    """What the command line says of a fit beside the settings. `board`: candidates are timed there before training."""

    out: Path | None
    resume: bool
    require_measured: bool
    command: str
    board: BoardAddress | None = None


@dataclass(frozen=True)
class Fitted:
    """What a fit ends with."""

    run: RunDirectory
    report: Report


class StageNames:
    """Numbers candidates in the order in which they are met, so that runs for several boards share their stages."""

    def __init__(self) -> None:
        self._met: dict[str, list[str]] = {}

    def __call__(self, prefix: str, label: str) -> str:
        """The stage's name, as `student-2`."""
        met = self._met.setdefault(prefix, [])
        if label not in met:
            met.append(label)
        return f"{prefix}-{met.index(label) + 1}"


def fit(settings: Settings, options: FitOptions, progress: Progress) -> Fitted:
    """Distil, quantize and convert the best student that is predicted to meet the budget.

    Nothing is written before the task's data, the recipe and the budget have been checked. What is finished is kept
    when the run stops early, and `resume` goes on from there.

    Raises:
        ConfigurationError: the task, recipe or output cannot be used.
        InfeasibleBudgetError: no student is predicted to meet the budget.
        BoardError: the board on which candidates are to be checked failed.
        BuildError: training diverged, or conversion, audit or parity failed.
    """
    return fit_all([settings], options, progress)[0]


def fit_all(all_settings: Sequence[Settings], options: FitOptions, progress: Progress) -> list[Fitted]:
    """A fit for each profile: one task, one teacher, and every student that two boards have in common trained once.

    All budgets are checked before anything is trained. With several profiles, `out` gets a folder for each.

    Raises:
        as `fit`.
    """
    task, recipe = load(all_settings[0], progress)
    several = len(all_settings) > 1
    plans = [prepare(one, recipe, task, options.board, progress) for one in all_settings]
    names, done = StageNames(), list[Fitted]()
    for plan in plans:
        name = plan.settings.profile.name
        out = options.out / name if options.out is not None and several else options.out
        run = RunDirectory.create(out, task.name, name, resume=options.resume)
        try:
            with run.lock("edgekd fit"):
                if done:
                    run.take_stages(done[0].run, ("teacher", "student-", "rung"))
                run.write_recipe(dump_toml(plan.recipe))
                report = _Fit(run, plan, task, names, progress).report(options)
        except BaseException:
            run.discard_if_unused()
            raise
        done.append(Fitted(run, report))
    return done


class _Fit:
    """One run: what its stages share."""

    def __init__(self, run: RunDirectory, plan: Prepared, task: Task, names: StageNames, progress: Progress) -> None:
        self.run, self.plan, self.task, self.names, self.progress = run, plan, task, names, progress
        self.settings, self.recipe = plan.settings, plan.recipe
        self.device = resolve_device(self.recipe.device)
        self.data = task.development()
        self.stages = StageRunner(run, progress, self.recipe.seed, data=task.content_hash(), device=str(self.device))
        self.how: dict[str, Any] = {"seed": self.recipe.seed, "device": self.device, "on_progress": progress.update}

    def report(self, options: FitOptions) -> Report:
        """Run every stage and write the report."""
        for name, detail in self.plan.findings.items():
            self.stages.note(name, detail)
        teacher, teacher_model = self._teacher()
        self.how["teacher"] = teacher
        teacher_logits = teacher_pass(teacher, self.data, self.task.input_shape, self.device)
        selected = self._selected(teacher_logits, teacher_model)
        candidate, student, student_model = selected.candidate, selected.student, selected.record
        ablations = self._ablations(candidate, teacher_logits, teacher_model, student_model.steps)
        rounded = self._quantized(student, student_model)
        weights = {"student": student_model.weights_sha256, "quantized": rounded.record.weights_sha256}
        built = build_files(self.run, self.stages, student, rounded.model, weights, self.data.validation)
        shape = student.architecture.input_shape
        scratch = ablations.get("scratch")
        others = {"teacher": teacher_model.weights_sha256, "scratch": scratch[1].weights_sha256 if scratch else ""}
        accuracy = evaluate(
            self.run,
            self.stages,
            self.task,
            built,
            teacher,
            scratch[0] if scratch else None,
            others,
            shape,
            self.device,
        )
        write_test_inputs(self.run, self.task, shape)
        report = fit_report(
            self.settings,
            self.task,
            candidate,
            built.artifacts,
            built.parity,
            accuracy,
            self.stages.costs,
            seed=self.recipe.seed,
            require_measured=options.require_measured,
            command=options.command,
        )
        write(self.run, report)
        return report

    def _teacher(self) -> tuple[nn.Module, TrainedModel]:
        schedule = self.recipe.teacher
        self.progress.stage("teacher", "trained on the labels" if schedule else "brought trained by the task")

        def train(model: nn.Module) -> Made:
            if schedule is None:
                return Made()
            return Made(
                train_model(model, self.data, self.task.input_shape, HARD_ONLY, schedule, title="teacher", **self.how)
            )

        return self.stages.model("teacher", {"schedule": schedule}, self.task.teacher.build, train)

    def _architecture(self, candidate: Candidate) -> Architecture:
        return architecture_of(candidate, self.task)

    def _distilled(
        self,
        name: str,
        candidate: Candidate,
        teacher_logits: Tensor,
        teacher: TrainedModel,
        objectives: tuple[Objective, ...],
        exact_steps: int | None = None,
        schedule: Training | None = None,
    ) -> tuple[Student, TrainedModel]:
        architecture = self._architecture(candidate)
        schedule = schedule or self.recipe.distill.training
        inputs = {
            "candidate": [candidate.space, candidate.choices],
            "objectives": objectives,
            "schedule": schedule,
            "teacher": teacher.weights_sha256,
            "exact_steps": exact_steps,
        }

        def train(model: nn.Module) -> Made:
            with threads_for(candidate.macs):
                trained = train_model(
                    model,
                    self.data,
                    architecture.input_shape,
                    objectives,
                    schedule,
                    title=name,
                    teacher_logits=teacher_logits,
                    exact_steps=exact_steps,
                    **self.how,
                )
            return Made(trained)

        return self.stages.model(name, inputs, lambda: Student(architecture), train)

    def _selected(self, teacher_logits: Tensor, teacher: TrainedModel) -> Selected:
        """The student to keep, by sizes in turn or by a search, as the recipe says."""
        objectives = self.recipe.distill.objectives

        def distil(name: str, candidate: Candidate, schedule: Training) -> tuple[Student, TrainedModel]:
            return self._distilled(name, candidate, teacher_logits, teacher, objectives, schedule=schedule)

        def judge(student: Student, candidate: Candidate) -> tuple[bool, ...]:
            validation = examples_of(self.data.validation, self._architecture(candidate).input_shape)
            right = correct(logits_of(student, validation.inputs, self.device), validation.labels)
            return tuple(right.tolist())

        full = self.recipe.distill.training
        selection = Selection(distil, judge, self.names, full, self.progress, self.stages)
        if self.recipe.student.search == "ladder":
            return selection.ladder(self.plan.proposal.ladder)
        return selection.halving(self.plan.search(), self.recipe.student.pool)

    def _ablations(
        self, candidate: Candidate, teacher_logits: Tensor, teacher: TrainedModel, steps: int
    ) -> dict[str, tuple[Student, TrainedModel]]:
        """The same student, seed and number of steps, with other objectives."""
        wanted: dict[str, tuple[Objective, ...]] = {}
        if self.recipe.ablation in ("scratch", "full"):
            wanted["scratch"] = HARD_ONLY
        if self.recipe.ablation == "full":
            for objective in self.recipe.distill.objectives:
                if objective.kind != "hard":
                    alone = objective.model_copy(update={"weight": 1.0, "weight_end": None})
                    # Features alone would leave the classifier as it started.
                    wanted[f"only-{objective.kind}"] = (*HARD_ONLY, objective) if objective.needs_features else (alone,)
        models = {}
        for name, objectives in wanted.items():
            self.progress.stage(name, f"the same student, {steps} steps, {' + '.join(o.kind for o in objectives)}")
            models[name] = self._distilled(name, candidate, teacher_logits, teacher, objectives, steps)
        return models

    def _quantized(self, student: Student, record: TrainedModel) -> Rounded:
        """Calibration, and training with rounding where it is wanted; the better is kept."""
        shape, recipe = student.architecture.input_shape, self.recipe.quantize
        model = FloatModel(
            module=student,
            images=student,
            example=example_input(student.architecture),
            data=self.data,
            shape=shape,
            scheme=recipe.scheme,
            labelled=True,
            seed=self.recipe.seed,
            device=self.device,
        )
        with threads_for(operator_list(student.architecture).macs):
            return quantize_float(
                model, self.stages, {"student": record.weights_sha256}, recipe.qat, self._allowance(), recipe
            )

    def _allowance(self) -> Allowance | None:
        return None
