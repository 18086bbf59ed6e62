"""None of the real inputs: what the student learns from is made from the teacher."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgekd.records import Hard, Training
from edgekd.tasks import Split
from edgekd.train.additions import Additions
from edgekd.train.examples import Examples, examples_of, labels_of, logits_of
from edgekd.train.loop import Trained
from edgekd.train.objectives import Loss
from edgekd.train.regimes.setting import Outcome, Setting, for_steps, of_responses
from edgekd.train.synthesis import GeneratorTraining, invert


def data_free(setting: Setting) -> Outcome:
    """Inputs made from the teacher, and its answers to them; no real training input is looked at.

    The validation split still decides when to stop: without any real data nothing could say how good the student is.
    The notes say how far behind the teacher it stays there, which saw real data.

    Raises:
        ConfigurationError: the teacher has no batch norm whose statistics could be met, or no classes.
    """
    setting.require_classes("distill.regime = 'data_free'")
    student, options = setting.fresh_student(), setting.recipe.data_free
    if options.source == "inversion":
        trained, made = _from_inversion(setting, student)
    else:
        trained, made = _from_generator(setting, student)
    validation = setting.data.validation
    teachers = setting.metric.score(setting.teacher_logits(validation), labels_of(validation))
    chosen = logits_of(setting.teacher, made, setting.device).argmax(1)
    notes = {
        "source": options.source,
        "synthesised": len(made),
        "classes_synthesised": len(set(chosen.tolist())),
        "val_behind_teacher": teachers - trained.validation_accuracy,
    }
    return Outcome(student, trained, trained.steps, dict(notes))


def _from_inversion(setting: Setting, student: nn.Module) -> tuple[Trained, Tensor]:
    options = setting.recipe.data_free
    inputs = invert(setting.teacher.to(setting.device), setting.native, options, setting.seed, setting.device)
    made, examples, schedule = _plan(setting, inputs)
    objectives = [o for o in setting.recipe.objectives if o.needs_teacher]
    featured = [o for o in objectives if o.needs_features]
    loss = Loss(objectives if len(featured) < len(objectives) else [Hard(), *featured])
    additions = Additions(features=setting.features(setting.teacher, torch.from_numpy(made.inputs)))
    return setting.learn_from(student, "student", examples, loss, schedule=schedule, additions=additions), inputs


def _from_generator(setting: Setting, student: nn.Module) -> tuple[Trained, Tensor]:
    options = setting.recipe.data_free
    source = GeneratorTraining(
        setting.teacher.to(setting.device), setting.native, setting.shape, options, setting.seed, setting.device
    )
    for step in range(options.generator_steps):
        source.step()
        if (step + 1) % max(1, options.generator_steps // 5) == 0:
            setting.on_progress(f"generator: step {step + 1}/{options.generator_steps}, {source.said()}")
    inputs = source.sample(options.inputs)
    _, examples, schedule = _plan(setting, inputs)
    objectives = [o for o in of_responses(setting.recipe.objectives) if o.needs_teacher] or [Hard()]
    additions = Additions(synthesise=source.batch)
    return setting.learn_from(
        student, "student", examples, Loss(objectives), schedule=schedule, additions=additions
    ), inputs


def _plan(setting: Setting, inputs: Tensor) -> tuple[Split, Examples, Training]:
    """The made inputs with the teacher's choices, and a schedule of as many steps as the real ones would take."""
    training = setting.recipe.training
    steps = training.epochs * max(1, len(setting.data.train) // training.batch_size)
    logits = logits_of(setting.teacher, inputs, setting.device)
    made, schedule = for_steps(training, steps, Split(inputs.numpy(), logits.argmax(1).numpy()))
    return made, examples_of(made, setting.shape, setting.teacher_logits(made)), schedule
