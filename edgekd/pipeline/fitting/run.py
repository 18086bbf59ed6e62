"""One fit from its prepared candidates to its report: teach, choose, compare, quantize, convert, evaluate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgekd.core.architecture import operator_list
from edgekd.core.statistics import paired_difference_interval
from edgekd.nn.students import Student, example_input
from edgekd.pipeline.console import Progress
from edgekd.pipeline.distillation.ablation import ablate
from edgekd.pipeline.distillation.parts import Design, Given
from edgekd.pipeline.distillation.teaching import Teaching
from edgekd.pipeline.distillation.tune import Chosen, choice_of, choose
from edgekd.pipeline.distillation.verdict import poor_teacher, verdict_on
from edgekd.pipeline.fitting.evaluation import Evaluated, build_files, evaluate, mixed_costs, write_test_inputs
from edgekd.pipeline.fitting.prepare import Prepared
from edgekd.pipeline.fitting.search import Selected, Selection
from edgekd.pipeline.fitting.user_space import source_of
from edgekd.pipeline.quantization.mixed import mix, mixing_may_help
from edgekd.pipeline.quantization.options import lowered_scheme
from edgekd.pipeline.quantization.quantizing import Allowance, FloatModel, Rounded, quantize_float
from edgekd.pipeline.stages import StageRunner, TrainedModel
from edgekd.records import Ablation, Candidate, Distillation, DistillationReport, QuantizationReport, Training
from edgekd.store import RunDirectory
from edgekd.tasks import Development, Split, Task
from edgekd.train.examples import correct, examples_of, logits_of, resolve_device, threads_for


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


@dataclass(frozen=True, eq=False)
class Fit:
    """What a fit found: the student that was kept, its files, and all that is known of them."""

    selected: Selected
    evaluated: Evaluated
    distillation: DistillationReport
    quantization: QuantizationReport
    warnings: tuple[str, ...]


class FitRun:
    """One run: what its stages share."""

    def __init__(
        self, run: RunDirectory, plan: Prepared, task: Task, names: StageNames, progress: Progress, features: Path
    ) -> None:
        self.run, self.plan, self.task, self.names, self.progress = run, plan, task, names, progress
        self.recipe = plan.recipe
        device = str(resolve_device(self.recipe.device))
        depends = {"data": task.content_hash(), "device": device, **source_of(plan.space)}
        self.stages = StageRunner(run, progress, self.recipe.seed, **depends)
        self.teaching = Teaching(self.recipe, task, self.stages, Given(feature_cache=features))

    def run_stages(self) -> Fit:
        """Run every stage, or take it from the run."""
        for name, detail in self.plan.findings.items():
            self.stages.note(name, detail)
        _ = self.teaching.teacher
        selected, distill, chosen = self._chosen(self._selected())
        kept, distillation, others = self._compared(selected, distill, chosen)
        rounded = self._quantized(kept)
        weights = {"student": kept.record.weights_sha256, "quantized": rounded.record.weights_sha256}
        opset = self.recipe.quantize.opset
        built = build_files(self.run, self.stages, kept.student, rounded.model, weights, self.task.validation, opset)
        if rounded.model.scheme == "wi8_ai8_mixed":
            kept = replace(kept, candidate=mixed_costs(kept, self.run.student("tflite"), self.plan.settings))
        evaluated = evaluate(self.run, self.stages, self.teaching, built, kept, others)
        write_test_inputs(self.run, self.task, kept.student.architecture.input_shape)
        distillation = distillation.model_copy(
            update={
                **evaluated.fidelity,
                "ablation": self._ablation(selected, distill),
                "student_sha256": weights["student"],
            }
        )
        return Fit(kept, evaluated, distillation, rounded.report, tuple(self.teaching.warnings))

    def _selected(self) -> Selected:
        """The student to keep, by sizes in turn or by a search, as the recipe says."""
        distill = self.recipe.distill

        def train(name: str, candidate: Candidate, schedule: Training) -> tuple[Student, TrainedModel]:
            return self.teaching.student(name, design_of(candidate), distill.model_copy(update={"training": schedule}))

        def judge(student: Student, candidate: Candidate) -> tuple[bool, ...]:
            return self._right(student)

        board = self.plan.board
        admit = tuple if board is None else board.admit
        selection = Selection(train, judge, self.names, distill.training, self.progress, self.stages, admit)
        if self.recipe.student.search == "ladder":
            return selection.ladder(self.plan.proposal.first)
        selected = selection.halving(self.plan.search_space())
        if board is not None:
            self.stages.remark("board-check", board.findings())
        return selected

    def _right(self, student: Student) -> tuple[bool, ...]:
        """Whether a student is right, for each validation input in order."""
        validation = examples_of(self.task.validation, student.architecture.input_shape)
        device = self.teaching.device
        logits = logits_of(student.to(device), validation.inputs, device)
        student.cpu()
        return tuple(correct(logits, validation.labels).tolist())

    def _chosen(self, selected: Selected) -> tuple[Selected, Distillation, Chosen | None]:
        """The candidate taught by the objectives that short runs choose for it, where that is wanted and better."""
        distill = self.recipe.distill
        choice = choice_of(distill)
        if choice is None:
            return selected, distill, None
        design = design_of(selected.candidate)
        self.progress.stage("choose", "objectives, by short runs on the validation split")
        inputs = {"candidate": [design.space, dict(design.choices)], "distill": distill, "choice": choice.minutes}
        inputs |= {"search": choice.search, "teacher": self.teaching.teacher.identity}
        chosen = self.stages.cached("choose", inputs, Chosen)
        if chosen is None:
            with self.stages.timed("choose"), threads_for(selected.candidate.macs):
                chosen = choose(self.teaching.setting(design), choice, self.teaching.identity())
            self.run.finish("choose", self.stages.hash(inputs), chosen)
        self.progress.update(chosen.reason)
        if chosen.distill.objectives == distill.objectives and chosen.distill.training == distill.training:
            return selected, distill, chosen
        name = self.names("chosen", selected.candidate.label)
        self.progress.stage(name, " + ".join(objective.kind for objective in chosen.distill.objectives))
        student, record = self.teaching.student(name, design, chosen.distill)
        before, after = selected.record.validation_accuracy or 0.0, record.validation_accuracy or 0.0
        told = f"; trained to the end {after:.4f} on the validation split, the recipe's objectives {before:.4f}"
        better = after >= before
        told += ": kept" if better else ": the recipe's are kept"
        chosen = chosen.model_copy(update={"reason": chosen.reason + told})
        if not better:
            return selected, distill, chosen
        return Selected(selected.candidate, student, record), chosen.distill, chosen

    def _compared(
        self, selected: Selected, distill: Distillation, chosen: Chosen | None
    ) -> tuple[Selected, DistillationReport, dict[str, tuple[Student, TrainedModel]]]:
        """The student to keep, against the same one from scratch on the validation split; and the one that is not."""
        teacher, teaching = self.teaching.teacher, self.teaching
        report = DistillationReport(
            regime=distill.regime,
            objectives=tuple(objective.kind for objective in distill.objectives),
            labelled=len(teaching.train),
            unlabelled=0 if teaching.unlabelled is None else len(teaching.unlabelled),
            teacher_val_accuracy=teacher.val_accuracy,
            val_accuracy=selected.record.validation_accuracy or 0.0,
            teacher_val_ece_before=teacher.val_ece[0],
            teacher_val_ece_after=teacher.val_ece[1],
            notes=selected.record.detail,
            chosen_because=None if chosen is None else chosen.reason,
            tried=() if chosen is None else chosen.tried,
        )
        if self.recipe.ablation == "none":
            return selected, report, {}
        design = design_of(selected.candidate)
        scratch, record = teaching.scratch("scratch", design, selected.record.steps, distill.training)
        assert isinstance(scratch, Student)
        ours, theirs = self._right(selected.student), self._right(scratch)
        gain = paired_difference_interval(ours, theirs)
        scratch_accuracy = float(np.mean(theirs))
        if poor := poor_teacher(teacher.val_accuracy, scratch_accuracy):
            teaching.warn(poor)
        worse = gain[1] < 0
        verdict = verdict_on(gain)
        if worse:
            teaching.warn(
                "DISTILLATION DID NOT PAY: on the validation split the student from scratch gets "
                f"{scratch_accuracy:.4f} right, the distilled one {float(np.mean(ours)):.4f}, which is beyond noise. "
                "The one from scratch is kept"
            )
        report = report.model_copy(
            update={
                "val_accuracy": float(np.mean(ours)),
                "scratch_val_accuracy": scratch_accuracy,
                "val_gain_interval": gain,
                "verdict": verdict,
                "kept": "scratch" if worse else "distilled",
            }
        )
        others = {"scratch": (scratch, record)}
        if not worse:
            return selected, report, others
        others["distilled"] = (selected.student, selected.record)
        return Selected(selected.candidate, scratch, record), report, others

    def _quantized(self, kept: Selected) -> Rounded:
        """Calibration, training with rounding and layers in float, each only where it is wanted."""
        student, recipe = kept.student, self.recipe.quantize
        data, labelled = self._inputs_to_quantize_on()
        model = FloatModel(
            module=student,
            images=student,
            example=example_input(student.architecture),
            data=data,
            shape=student.architecture.input_shape,
            scheme=lowered_scheme(recipe.scheme, recipe),
            labelled=labelled,
            seed=self.recipe.seed,
            device=self.teaching.device,
        )
        limit = self.plan.settings.budget.accuracy_drop_max
        allowed = Allowance()
        if limit is not None:
            reference = self.teaching.teacher.val_accuracy
            allowed = Allowance(reference, limit, "the teacher", "accuracy_drop_max of the budget")
        inputs = {"student": kept.record.weights_sha256}
        with threads_for(operator_list(student.architecture).macs):
            rounded = quantize_float(model, self.stages, inputs, allowed, recipe)
            self.progress.update(f"{rounded.report.chosen.upper()} is kept; QAT {rounded.report.qat_reason}")
            if recipe.mixed:
                rounded = mix(model, rounded, allowed, self.stages)
            elif limit is not None and mixing_may_help(rounded.report, allowed):
                self.teaching.warn(
                    f"rounding loses more than the {100 * allowed.limit:g} points that are allowed on the validation "
                    "split: --mixed keeps the layers that it hurts most in float"
                )
        if rounded.report.mixed is not None and not rounded.report.mixed.holds:
            self.teaching.warn(f"mixed precision {rounded.report.mixed.reason}")
        if recipe.float_io:
            rounded.model.use_float_io()
        return rounded

    def _inputs_to_quantize_on(self) -> tuple[Development, bool]:
        """The training split; where there are inputs without labels, those too, and then no label is looked at."""
        data, more = self.teaching.data, self.teaching.unlabelled
        if self.recipe.distill.regime == "data_free":
            self.teaching.warn(
                "data_free: the student saw no real training input, but its ranges are calibrated on some (no labels)"
            )
        if more is None or len(more) == 0:
            return data, True
        every = np.concatenate([data.train.inputs, more])
        nothing = np.zeros((len(every), *data.train.labels.shape[1:]), data.train.labels.dtype)
        return replace(data, train=Split(every, nothing)), False

    def _ablation(self, selected: Selected, distill: Distillation) -> Ablation | None:
        """Each objective alone and all together, over seeds; after all is decided, for it reads the test split."""
        if self.recipe.ablation != "full":
            return None
        return ablate(self.teaching, design_of(selected.candidate), distill, self.recipe.ablation_seeds)


def design_of(candidate: Candidate) -> Design:
    """A candidate's architecture."""
    return Design(candidate.space, candidate.choices)
