"""Who teaches whom, and from what: the regimes of distillation, each with its own options."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from edgekd.records.base import Fraction, NonNegative, Positive, PositiveInt, Record

Regime = Literal[
    "offline",
    "self",
    "online",
    "multi_teacher",
    "progressive",
    "curriculum",
    "semi_supervised",
    "data_free",
    "adversarial",
    "continual",
    "reverse",
    "multi_task",
]
REGIMES: tuple[Regime, ...] = get_args(Regime)

Few = Annotated[int, Field(ge=2, le=8)]


class SelfDistillation(Record):
    """No teacher but the student itself.

    `generations`: born-again networks (Furlanello et al. 2018, arXiv:1805.04770), each generation taught by the one
    before; the first learns from the labels. `average`: the run's own averaged weights teach (mean teacher: Tarvainen
    and Valpola 2017, arXiv:1703.01780).
    """

    source: Literal["generations", "average"] = "generations"
    generations: Annotated[int, Field(ge=2, le=10)] = 2


class Online(Record):
    """Peers that learn together, each from the labels and the others (Zhang et al. 2018, arXiv:1706.00384)."""

    peers: Few = 2
    temperature: Positive = 2.0
    weight: NonNegative = 1.0


class MultiTeacher(Record):
    """An ensemble of teachers, the task's own trained with other seeds.

    `mean` averages their probabilities; `confidence` weights each input's teachers by how sure they are (one less
    their normalised entropy); `per_sample` takes for each input the teacher that gives its label the most, where it
    has one, else the surest. `input_shares` are the shares of the task's window or resolution that the teachers
    after the first see, in turn; empty means all of it.
    """

    teachers: Few = 3
    combine: Literal["mean", "confidence", "per_sample"] = "mean"
    input_shares: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()


class Progressive(Record):
    """A teacher assistant between teacher and student (Mirzadeh et al. 2020, arXiv:1902.03393).

    `widening` is how many times wider than the student the assistant's choice of width is, at most the space's widest.
    """

    widening: Annotated[float, Field(gt=1, le=16)] = 2.0


class Curriculum(Record):
    """Easy inputs first (Bengio et al. 2009): the surest for the teacher, or with the largest margin for their label.

    The share of the data in use grows linearly from `start_share`, and is all of it from `full_at` of the epochs on.
    """

    order_by: Literal["confidence", "margin"] = "margin"
    start_share: Annotated[float, Field(gt=0, le=1)] = 0.3
    full_at: Fraction = 0.5


class SemiSupervised(Record):
    """Few labels, and unlabelled inputs that the teacher labels.

    The labels are the training split's, or of those only `labels` many (the same number for each class), or those of
    the groups `label_groups`; the rest of the split then counts as unlabelled, beside the task's own unlabelled
    inputs. `teacher_labels` says from which labels the teacher learnt. The teacher's choice serves as a label where
    its probability is at least `threshold` (Lee 2013); soft targets are of all inputs.
    """

    labels: PositiveInt | None = None
    label_groups: tuple[str, ...] = ()
    teacher_labels: Literal["labelled", "all"] = "labelled"
    pseudo_labels: bool = True
    threshold: Fraction = 0.9


class DataFree(Record):
    """Inputs made from the teacher, none of the real ones.

    `inversion`: a set of `inputs` inputs, moved from noise until the teacher's batch statistics are met (Yin et al.
    2020, arXiv:1912.08795). `generator`: a small network, trained for `generator_steps` steps to make inputs that the
    teacher is sure of, of all classes alike (Chen et al. 2019, arXiv:1904.01186), with its batch statistics; the
    student then sees fresh ones at every step. With `disagreement_weight` the generator goes on, against the student:
    it looks for inputs on which the two differ (Fang et al. 2019, arXiv:1912.11006).
    """

    source: Literal["inversion", "generator"] = "inversion"
    inputs: Annotated[int, Field(ge=64, le=100_000)] = 2048
    iterations: PositiveInt = 150
    learning_rate: Positive = 0.05
    statistics_weight: NonNegative = 1.0
    smoothness_weight: NonNegative = 0.05
    generator_steps: PositiveInt = 600
    generator_learning_rate: Positive = 2e-3
    noise_size: Annotated[int, Field(ge=2, le=1024)] = 64
    onehot_weight: NonNegative = 1.0
    entropy_weight: NonNegative = 5.0
    disagreement_weight: NonNegative = 0.0


class Adversarial(Record):
    """`robust`: the student sees attacked inputs, the teacher's targets are of the clean ones.

    (Goldblum et al. 2020, arXiv:1905.09747.) The attack moves each value by at most `epsilon`, in the task's own
    preprocessed units, in `attack_steps` steps; robust accuracy is measured with `evaluation_steps` steps.
    `discriminator`: a small network learns to tell the student's logits from the teacher's, and the student to mislead
    it (Xu, Hsu, Huang 2018, arXiv:1709.00513).
    """

    form: Literal["robust", "discriminator"] = "robust"
    epsilon: Positive = 0.1
    attack_steps: Annotated[int, Field(ge=1, le=50)] = 1
    evaluation_steps: Annotated[int, Field(ge=1, le=200)] = 10
    discriminator_weight: NonNegative = 0.1


class Continual(Record):
    """New data or a new teacher after deployment: the deployed student goes on, taught not to forget.

    (Learning without forgetting: Li and Hoiem 2016, arXiv:1606.09282.) The deployed student is what `start` names: a
    run of `edgekd fit`, or weights that `edgekd distill --save` wrote. Without it one is first trained on a share
    `old_share` of the training split (whole groups, where it has them). It is then re-distilled on the rest, with
    the teacher of now, where the deployed student teaches too, with `memory_weight`. With `start` and an `old_share`
    of 1 there is no new data, only a new teacher. What was forgotten is measured on old inputs held back from this.
    """

    old_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    memory_weight: NonNegative = 0.5
    start: str | None = Field(default=None, description="the deployed student: a run's directory, or a file of weights")


class MultiTask(Record):
    """An auxiliary head that is thrown away: `inputs` rebuilds a coarse input, `groups` tells the input's group."""

    auxiliary: Literal["inputs", "groups"] = "inputs"
    weight: NonNegative = 0.1
