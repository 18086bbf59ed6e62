"""What is compared: each objective, each regime, and few labels, as changes to the default recipe."""

from __future__ import annotations

from edgekd.records import (
    Adversarial,
    Attention,
    Continual,
    Curriculum,
    DataFree,
    Dist,
    Distillation,
    Dkd,
    FitNet,
    Hard,
    Hinton,
    LogitStandardization,
    MultiTask,
    MultiTeacher,
    Online,
    Progressive,
    Relational,
    SelfDistillation,
    SemiSupervised,
)

FEW = {
    "watch-gestures": SemiSupervised(label_groups=("1", "2")),
    "fashion-mnist": SemiSupervised(labels=100),
}
"""The few labels: those of two of the five training subjects; ten images of each class."""

OBJECTIVES: dict[str, Distillation] = {
    "default": Distillation(),
    "hard, smoothing 0.1": Distillation(objectives=(Hard(label_smoothing=0.1),)),
    "hinton alone": Distillation(objectives=(Hinton(),)),
    "hinton, T 1": Distillation(objectives=(Hard(weight=0.3), Hinton(weight=0.7, temperature=1))),
    "hinton, soft weight 0.9 to 0.1": Distillation(
        objectives=(Hard(weight=0.1, weight_end=0.9), Hinton(weight=0.9, weight_end=0.1))
    ),
    "hinton, calibrated teacher": Distillation(calibration="temperature"),
    "dkd": Distillation(objectives=(Hard(weight=0.5), Dkd(weight=0.5))),
    "dist": Distillation(objectives=(Hard(weight=0.5), Dist(weight=0.5))),
    "logit_standardization": Distillation(objectives=(Hard(weight=0.3), LogitStandardization(weight=0.7))),
    "fitnet": Distillation(objectives=(Hard(), FitNet(weight=0.5))),
    "attention": Distillation(objectives=(Hard(), Attention(weight=10))),
    "relational": Distillation(objectives=(Hard(), Relational())),
    "relational, similarity": Distillation(objectives=(Hard(), Relational(weight=100, form="similarity"))),
    "hinton + fitnet": Distillation(objectives=(Hard(weight=0.3), Hinton(weight=0.7), FitNet(weight=0.5))),
    "hinton + relational": Distillation(objectives=(Hard(weight=0.3), Hinton(weight=0.7), Relational(weight=0.5))),
}

REGIMES: dict[str, Distillation] = {
    "self, 2 generations": Distillation(regime="self", self_distillation=SelfDistillation(generations=2)),
    "self, own average": Distillation(regime="self", self_distillation=SelfDistillation(source="average")),
    "online, 2 peers": Distillation(regime="online", online=Online(peers=2)),
    "multi_teacher, mean": Distillation(regime="multi_teacher", multi_teacher=MultiTeacher(teachers=3)),
    "multi_teacher, confidence": Distillation(
        regime="multi_teacher", multi_teacher=MultiTeacher(teachers=3, combine="confidence")
    ),
    "multi_teacher, per_sample": Distillation(
        regime="multi_teacher", multi_teacher=MultiTeacher(teachers=3, combine="per_sample")
    ),
    "progressive": Distillation(regime="progressive", progressive=Progressive(widening=2)),
    "curriculum": Distillation(regime="curriculum", curriculum=Curriculum()),
    "data_free": Distillation(regime="data_free", data_free=DataFree(), objectives=(Hinton(),)),
    "data_free, generator": Distillation(
        regime="data_free", data_free=DataFree(source="generator"), objectives=(Hinton(),)
    ),
    "data_free, generator against the student": Distillation(
        regime="data_free", data_free=DataFree(source="generator", disagreement_weight=0.1), objectives=(Hinton(),)
    ),
    "adversarial, robust": Distillation(regime="adversarial", adversarial=Adversarial()),
    "adversarial, discriminator": Distillation(regime="adversarial", adversarial=Adversarial(form="discriminator")),
    "continual": Distillation(regime="continual", continual=Continual()),
    "reverse": Distillation(regime="reverse"),
    "multi_task": Distillation(regime="multi_task", multi_task=MultiTask()),
}


def few_labels(task: str) -> dict[str, Distillation]:
    """Few labels and the rest of the training split without them; which variant wins is said by validation."""
    cases = {}
    for teacher in ("labelled", "all"):
        for name, objectives, pseudo in (
            ("default", (Hard(weight=0.3), Hinton(weight=0.7)), True),
            ("soft alone", (Hinton(),), False),
            ("soft alone, T 1", (Hinton(temperature=1),), False),
        ):
            options = FEW[task].model_copy(update={"teacher_labels": teacher, "pseudo_labels": pseudo})
            cases[f"few labels, teacher of {teacher}, {name}"] = Distillation(
                regime="semi_supervised", semi_supervised=options, objectives=objectives
            )
    return cases
