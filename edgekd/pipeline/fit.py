"""`edgekd fit`: profile, budget and task in; a distilled int8 student and its report out."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from edgekd.core.architecture import Architecture, operator_list
from edgekd.core.propose import Proposal, propose
from edgekd.core.sizing import Trial, choose
from edgekd.core.spaces import SPACES, space_named
from edgekd.load import dump_toml
from edgekd.nn.quantized.model import QuantizedModel, quantize_model
from edgekd.nn.students import Student, example_input
from edgekd.pipeline.console import Progress
from edgekd.pipeline.evaluation import build_files, evaluate, write_test_inputs
from edgekd.pipeline.reporting import fit_report, write
from edgekd.pipeline.settings import Settings, with_task_schedules
from edgekd.pipeline.stages import StageRunner, TrainedModel
from edgekd.records import Candidate, Objective, Recipe, Report
from edgekd.store import RunDirectory
from edgekd.tasks import Task, load_task
from edgekd.train.distill import HARD_ONLY, require_offline, teacher_pass, train_model, train_quantized
from edgekd.train.examples import correct, examples_of, logits_of, resolve_device, threads_for
from edgekd.train.loop import Trained
from edgekd.train.objectives import Loss

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fitted:
    """What a fit ends with."""

    run: RunDirectory
    report: Report


def fit(
    settings: Settings, *, out: Path | None, resume: bool, require_measured: bool, command: str, progress: Progress
) -> Fitted:
    """Distil, quantize and convert the best student that is predicted to meet the budget.

    Nothing is written before the task's data, the recipe and the budget have been checked. What is finished is kept
    when the run stops early, and `resume` goes on from there.

    Raises:
        ConfigurationError: the task, recipe or output cannot be used.
        InfeasibleBudgetError: no student is predicted to meet the budget.
        BuildError: training diverged, or conversion, audit or parity failed.
    """
    progress.stage("data", settings.recipe.task.name)
    task = load_task(settings.recipe.task.name, settings.recipe.task.options)
    recipe = with_task_schedules(settings.recipe, task)
    Loss(recipe.distill.objectives)
    require_offline(recipe.distill)
    progress.update(f"{len(task.train)} train, {len(task.validation)} validation, {len(task.test)} test inputs")
    space = space_named(task.default_space if recipe.student.space == "auto" else recipe.student.space)
    progress.stage("propose", f"{space.name} under the budget of {settings.profile.name}")
    proposal = propose(
        space,
        task.input_shape,
        len(task.classes),
        settings.profile,
        settings.budget,
        recipe.student.fixed,
        recipe.student.grow,
    )
    progress.update(
        f"{len(proposal.feasible)} of {proposal.considered} students fit; {len(proposal.ladder)} sizes to try"
    )
    run = RunDirectory.create(out, task.name, settings.profile.name, resume=resume)
    try:
        with run.lock("edgekd fit"):
            run.write_recipe(dump_toml(recipe))
            report = _Fit(run, settings, recipe, task, progress).report(proposal, require_measured, command)
    except BaseException:
        run.discard_if_unused()
        raise
    return Fitted(run, report)


class _Fit:
    """One run: what its stages share."""

    def __init__(self, run: RunDirectory, settings: Settings, recipe: Recipe, task: Task, progress: Progress) -> None:
        self.run, self.settings, self.recipe, self.task, self.progress = run, settings, recipe, task, progress
        self.device = resolve_device(recipe.device)
        self.data = task.development()
        self.stages = StageRunner(run, progress, recipe.seed, data=task.content_hash(), device=str(self.device))
        self.how: dict[str, Any] = {"seed": recipe.seed, "device": self.device, "on_progress": progress.update}

    def report(self, proposal: Proposal, require_measured: bool, command: str) -> Report:
        """Run every stage and write the report."""
        teacher, teacher_model = self._teacher()
        self.how["teacher"] = teacher
        teacher_logits = teacher_pass(teacher, self.data, self.task.input_shape, self.device)
        candidate, student, student_model = self._student(proposal, teacher_logits, teacher_model)
        ablations = self._ablations(candidate, teacher_logits, teacher_model, student_model.steps)
        quantized, quantized_model = self._quantized(student, teacher_logits, student_model)
        weights = {"student": student_model.weights_sha256, "quantized": quantized_model.weights_sha256}
        built = build_files(self.run, self.stages, student, quantized, weights, self.data.validation)
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
            require_measured=require_measured,
            command=command,
        )
        write(self.run, report)
        return report

    def _teacher(self) -> tuple[nn.Module, TrainedModel]:
        schedule = self.recipe.teacher
        self.progress.stage("teacher", "trained on the labels" if schedule else "brought trained by the task")

        def train(model: nn.Module) -> Trained | None:
            if schedule is None:
                return None
            return train_model(
                model, self.data, self.task.input_shape, HARD_ONLY, schedule, title="teacher", **self.how
            )

        return self.stages.model("teacher", {"schedule": schedule}, self.task.teacher.build, train)

    def _architecture(self, candidate: Candidate) -> Architecture:
        space = SPACES[candidate.space]
        return space.architecture(candidate.choices, self.task.input_shape, len(self.task.classes))

    def _distilled(
        self,
        name: str,
        candidate: Candidate,
        teacher_logits: Tensor,
        teacher: TrainedModel,
        objectives: tuple[Objective, ...],
        exact_steps: int | None = None,
    ) -> tuple[Student, TrainedModel]:
        architecture = self._architecture(candidate)
        schedule = self.recipe.distill.training
        inputs = {
            "candidate": [candidate.space, candidate.choices],
            "objectives": objectives,
            "schedule": schedule,
            "teacher": teacher.weights_sha256,
            "exact_steps": exact_steps,
        }

        def train(model: nn.Module) -> Trained:
            with threads_for(candidate.macs):
                return train_model(
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

        return self.stages.model(name, inputs, lambda: Student(architecture), train)

    def _student(
        self, proposal: Proposal, teacher_logits: Tensor, teacher: TrainedModel
    ) -> tuple[Candidate, Student, TrainedModel]:
        """Smallest viable first, growing until accuracy on the validation split stops rising by more than its noise."""
        trials: list[Trial] = []
        trained: list[tuple[Candidate, Student, TrainedModel]] = []
        for index, candidate in enumerate(proposal.ladder):
            name = f"student-{index + 1}"
            self.progress.stage(name, f"{candidate.label} ({candidate.parameters} parameters)")
            student, record = self._distilled(name, candidate, teacher_logits, teacher, self.recipe.distill.objectives)
            validation = examples_of(self.data.validation, self._architecture(candidate).input_shape)
            right = correct(logits_of(student, validation.inputs, self.device), validation.labels)
            trials.append(Trial(name, tuple(right.tolist())))
            trained.append((candidate, student, record))
            if choose(trials).stop:
                break
        chosen = choose(trials)
        self.progress.update(f"chosen: {trials[chosen.best].name}: {chosen.reason}")
        self.stages.remark(trials[-1].name, {"chosen": trials[chosen.best].name, "reason": chosen.reason})
        return trained[chosen.best]

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

    def _quantized(
        self, student: Student, teacher_logits: Tensor, record: TrainedModel
    ) -> tuple[QuantizedModel, TrainedModel]:
        recipe, objectives = self.recipe.quantize, self.recipe.distill.objectives
        self.progress.stage("quantize", f"{recipe.scheme}, {recipe.training.epochs} epochs of QAT")
        shape = student.architecture.input_shape

        def train(model: QuantizedModel) -> Trained:
            with threads_for(operator_list(student.architecture).macs):
                return train_quantized(
                    model, self.data, shape, objectives, recipe, teacher_logits=teacher_logits, **self.how
                )

        return self.stages.model(
            "quantized",
            {"quantize": recipe, "objectives": objectives, "student": record.weights_sha256},
            lambda: quantize_model(student, example_input(student.architecture), recipe.scheme),
            train,
        )
