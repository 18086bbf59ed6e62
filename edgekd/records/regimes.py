"""Who teaches whom, and from what: the regimes of distillation, each with its own options."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

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


class RegimeOptions(Record):
    """A regime's own options. The class variables say to people what the regime is.

    `procedure` is what it does, in a line; `data` what it needs to learn from; `table` the recipe's table of its
    options, empty where it has none.
    """

    regime: ClassVar[Regime]
    procedure: ClassVar[str]
    paper: ClassVar[str]
    use: ClassVar[str]
    data: ClassVar[str]
    table: ClassVar[str] = ""


class Offline(RegimeOptions):
    """The usual regime. It has no options."""

    regime: ClassVar[Regime] = "offline"
    procedure: ClassVar[str] = "train a teacher, freeze it, then train the student on labels and the teacher's answers"
    paper: ClassVar[str] = "Hinton, Vinyals, Dean 2015, arXiv:1503.02531"
    use: ClassVar[str] = "the default"
    data: ClassVar[str] = "labels"


class SelfDistillation(RegimeOptions):
    """No teacher but the student itself.

    `generations`: born-again networks (Furlanello et al. 2018, arXiv:1805.04770), each generation taught by the one
    before; the first learns from the labels. `average`: the run's own averaged weights teach (mean teacher: Tarvainen
    and Valpola 2017, arXiv:1703.01780).
    """

    regime: ClassVar[Regime] = "self"
    procedure: ClassVar[str] = (
        "generations: student g learns from labels and student g-1 (the first from labels alone); average: the "
        "teacher of each step is the average of the student's own weights so far"
    )
    paper: ClassVar[str] = (
        "born-again networks: Furlanello et al. 2018, arXiv:1805.04770; mean teacher: Tarvainen, Valpola 2017, "
        "arXiv:1703.01780"
    )
    use: ClassVar[str] = (
        "no teacher is at hand or worth its training; average costs one more pass, generations a whole training each"
    )
    data: ClassVar[str] = "labels"
    table: ClassVar[str] = "[distill.self_distillation]"

    source: Literal["generations", "average"] = Field(default="generations", description="who teaches")
    generations: Annotated[int, Field(ge=2, le=10, description="how many students, one after another")] = 2


class Online(RegimeOptions):
    """Peers that learn together, each from the labels and the others (Zhang et al. 2018, arXiv:1706.00384)."""

    regime: ClassVar[Regime] = "online"
    procedure: ClassVar[str] = (
        "each peer i minimises its hard loss + weight mean over the others j of T^2 KL(p_j || p_i); the first peer is "
        "kept; the recipe's objectives are not used"
    )
    paper: ClassVar[str] = "Zhang et al. 2018 (deep mutual learning), arXiv:1706.00384"
    use: ClassVar[str] = "no teacher is at hand"
    data: ClassVar[str] = "labels"
    table: ClassVar[str] = "[distill.online]"

    peers: Few = Field(default=2, description="how many learn together")
    temperature: Positive = Field(default=2.0, description="T")
    weight: NonNegative = Field(default=1.0, description="of what the peers teach each other")


class MultiTeacher(RegimeOptions):
    """An ensemble of teachers, the task's own trained with other seeds.

    `mean` averages their probabilities; `confidence` weights each input's teachers by how sure they are (one less
    their normalised entropy); `per_sample` takes for each input the teacher that gives its label the most, where it
    has one, else the surest. `input_shares` are the shares of the task's window or resolution that the teachers
    after the first see, in turn; empty means all of it.
    """

    regime: ClassVar[Regime] = "multi_teacher"
    procedure: ClassVar[str] = (
        "teach log(sum over teachers m of w_m p_m): w equal (mean), by certainty (confidence), or 1 for the "
        "input's best teacher (per_sample)"
    )
    paper: ClassVar[str] = (
        "You et al. 2017, doi:10.1145/3097983.3098135; confidence: Zhang et al. 2022, arXiv:2201.00007"
    )
    use: ClassVar[str] = (
        "one teacher is unsteady, or teachers of several windows or resolutions know different things; each costs "
        "a training"
    )
    data: ClassVar[str] = "labels"
    table: ClassVar[str] = "[distill.multi_teacher]"

    teachers: Few = Field(default=3, description="how many")
    combine: Literal["mean", "confidence", "per_sample"] = Field(default="mean", description="how they are weighted")
    input_shares: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        default=(),
        description="shares of the window or resolution, each > 0 and <= 1, that the teachers after the first see, "
        "in turn; empty: all",
    )


class Progressive(RegimeOptions):
    """A teacher assistant between teacher and student (Mirzadeh et al. 2020, arXiv:1902.03393).

    `widening` is how many times wider than the student the assistant's choice of width is, at most the space's widest.
    """

    regime: ClassVar[Regime] = "progressive"
    procedure: ClassVar[str] = (
        "the teacher teaches an assistant wider than the student, the assistant teaches the student"
    )
    paper: ClassVar[str] = "Mirzadeh et al. 2020 (teacher assistant), arXiv:1902.03393"
    use: ClassVar[str] = "a teacher far larger than the student, whose answers are out of its reach"
    data: ClassVar[str] = "labels"
    table: ClassVar[str] = "[distill.progressive]"

    widening: Annotated[float, Field(gt=1, le=16, description="width of the assistant over the student's")] = 2.0


class Curriculum(RegimeOptions):
    """Easy inputs first (Bengio et al. 2009): the surest for the teacher, or with the largest margin for their label.

    The share of the data in use grows linearly from `start_share`, and is all of it from `full_at` of the epochs on.
    """

    regime: ClassVar[Regime] = "curriculum"
    procedure: ClassVar[str] = (
        "offline, on the easiest share of the inputs, which grows linearly from start_share to 1 at full_at of the"
        " epochs"
    )
    paper: ClassVar[str] = "Bengio et al. 2009, doi:10.1145/1553374.1553380"
    use: ClassVar[str] = "noisy labels, or inputs of very unlike difficulty"
    data: ClassVar[str] = "labels"
    table: ClassVar[str] = "[distill.curriculum]"

    order_by: Literal["confidence", "margin"] = Field(
        default="margin",
        description="which inputs are easy: the surest for the teacher, or with the largest margin for their label",
    )
    start_share: Annotated[float, Field(gt=0, le=1, description="of the inputs in use at the start")] = 0.3
    full_at: Fraction = Field(default=0.5, description="share of the epochs after which all inputs are in use")


class SemiSupervised(RegimeOptions):
    """Few labels, and unlabelled inputs that the teacher labels.

    The labels are the training split's, or of those only `labels` many (the same number for each class), or those of
    the groups `label_groups`; the rest of the split then counts as unlabelled, beside the task's own unlabelled
    inputs. `teacher_labels` says from which labels the teacher learnt. The teacher's choice serves as a label where
    its probability is at least `threshold` (Lee 2013); soft targets are of all inputs.
    """

    regime: ClassVar[Regime] = "semi_supervised"
    procedure: ClassVar[str] = (
        "all inputs learn the teacher's answers; the label is the true one where known, else the teacher's choice "
        "where its probability >= threshold"
    )
    paper: ClassVar[str] = "pseudo-labels: Lee 2013, ICML workshop on challenges in representation learning"
    use: ClassVar[str] = "labels are few and inputs without labels many"
    data: ClassVar[str] = (
        "some labels, and inputs without: the task's own (Task.unlabelled), or labels hidden by --labels N or "
        "label_groups"
    )
    table: ClassVar[str] = "[distill.semi_supervised]"

    labels: PositiveInt | None = Field(
        default=None, description="keep so many labels, the same number for each class (--labels)"
    )
    label_groups: tuple[str, ...] = Field(default=(), description="keep the labels of these groups")
    teacher_labels: Literal["labelled", "all"] = Field(
        default="labelled", description="from which labels the teacher learns"
    )
    pseudo_labels: bool = Field(default=True, description="the teacher's choice serves as a label where it is sure")
    threshold: Fraction = Field(default=0.9, description="least probability of a pseudo-label")


class DataFree(RegimeOptions):
    """Inputs made from the teacher, none of the real ones.

    `inversion`: a set of `inputs` inputs, moved from noise until the teacher's batch statistics are met (Yin et al.
    2020, arXiv:1912.08795). `generator`: a small network, trained for `generator_steps` steps to make inputs that the
    teacher is sure of, of all classes alike (Chen et al. 2019, arXiv:1904.01186), with its batch statistics; the
    student then sees fresh ones at every step. With `disagreement_weight` the generator goes on, against the student:
    it looks for inputs on which the two differ (Fang et al. 2019, arXiv:1912.11006).
    """

    regime: ClassVar[Regime] = "data_free"
    procedure: ClassVar[str] = (
        "inversion: move inputs from noise to minimise CE(teacher, drawn class) + statistics_weight (distance of "
        "batch statistics) + smoothness_weight (roughness); generator: train a network to make them; then the "
        "student learns the teacher's answers to them"
    )
    paper: ClassVar[str] = (
        "inversion: Yin et al. 2020, arXiv:1912.08795; generator: Chen et al. 2019, arXiv:1904.01186; "
        "disagreement: Fang et al. 2019, arXiv:1912.11006"
    )
    use: ClassVar[str] = (
        "the training data may not be used any more; it stays behind training on real data; classes only"
    )
    data: ClassVar[str] = (
        "no training inputs; a teacher with batch norm (no black box), and a validation split to stop by"
    )
    table: ClassVar[str] = "[distill.data_free]"

    source: Literal["inversion", "generator"] = Field(default="inversion", description="how inputs are made")
    inputs: Annotated[int, Field(ge=64, le=100_000, description="how many are made")] = 2048
    iterations: PositiveInt = Field(default=150, description="steps of the inversion")
    learning_rate: Positive = Field(default=0.05, description="of the inversion")
    statistics_weight: NonNegative = Field(default=1.0, description="of the distance to the batch norms' statistics")
    smoothness_weight: NonNegative = Field(default=0.05, description="of the squared difference of neighbours")
    generator_steps: PositiveInt = Field(default=600, description="steps of the generator before the student learns")
    generator_learning_rate: Positive = Field(default=2e-3, description="of the generator")
    noise_size: Annotated[int, Field(ge=2, le=1024, description="values of noise that an input is made from")] = 64
    onehot_weight: NonNegative = Field(default=1.0, description="generator: of the teacher being sure of an input")
    entropy_weight: NonNegative = Field(default=5.0, description="generator: of all classes being made alike")
    disagreement_weight: NonNegative = Field(
        default=0.0, description="generator: of the student differing from the teacher, while the student learns"
    )


class Adversarial(RegimeOptions):
    """`robust`: the student sees attacked inputs, the teacher's targets are of the clean ones.

    (Goldblum et al. 2020, arXiv:1905.09747.) The attack moves each value by at most `epsilon`, in the task's own
    preprocessed units, in `attack_steps` steps; robust accuracy is measured with `evaluation_steps` steps.
    `discriminator`: a small network learns to tell the student's logits from the teacher's, and the student to mislead
    it (Xu, Hsu, Huang 2018, arXiv:1709.00513).
    """

    regime: ClassVar[Regime] = "adversarial"
    procedure: ClassVar[str] = (
        "robust: objectives at x + d, |d| <= epsilon chosen to mislead the student, with the teacher's answers to "
        "x; discriminator: objectives + discriminator_weight (-log D(s)), D learns to tell teacher logits from the"
        " student's"
    )
    paper: ClassVar[str] = (
        "robust: Goldblum et al. 2020, arXiv:1905.09747; discriminator: Xu, Hsu, Huang 2018, arXiv:1709.00513"
    )
    use: ClassVar[str] = "inputs may be tampered with or noisy (robust; costs some clean accuracy); classes only"
    data: ClassVar[str] = "labels"
    table: ClassVar[str] = "[distill.adversarial]"

    form: Literal["robust", "discriminator"] = Field(default="robust", description="who the opponent is")
    epsilon: Positive = Field(default=0.1, description="most that a value is moved, in preprocessed units")
    attack_steps: Annotated[int, Field(ge=1, le=50, description="of an attack in training")] = 1
    evaluation_steps: Annotated[
        int, Field(ge=1, le=200, description="of an attack when robust accuracy is measured")
    ] = 10
    discriminator_weight: NonNegative = Field(default=0.1, description="of misleading the discriminator")


class Continual(RegimeOptions):
    """New data or a new teacher after deployment: the deployed student goes on, taught not to forget.

    (Learning without forgetting: Li and Hoiem 2016, arXiv:1606.09282.) The deployed student is what `start` names: a
    run of `edgekd fit`, or weights that `edgekd distill --save` wrote. Without it one is first trained on a share
    `old_share` of the training split (whole groups, where it has them). It is then re-distilled on the rest, with
    the teacher of now, where the deployed student teaches too, with `memory_weight`. With `start` and an `old_share`
    of 1 there is no new data, only a new teacher. What was forgotten is measured on old inputs held back from this.
    """

    regime: ClassVar[Regime] = "continual"
    procedure: ClassVar[str] = (
        "from the deployed student on: objectives on new data + memory_weight T^2 KL(deployed student || student),"
        " T = 2; accuracy on old inputs before and after says what was forgotten"
    )
    paper: ClassVar[str] = "Li, Hoiem 2016 (learning without forgetting), arXiv:1606.09282"
    use: ClassVar[str] = "new data or a better teacher after deployment (--from RUN or weights)"
    data: ClassVar[str] = (
        "labels of the new data; a student deployed before, or the share old_share of the split to train one first"
    )
    table: ClassVar[str] = "[distill.continual]"

    old_share: Annotated[
        float, Field(gt=0, le=1, description="share of the split that counts as old; 1: no new data, with start only")
    ] = 0.5
    memory_weight: NonNegative = Field(default=0.5, description="of what the deployed student teaches")
    start: str | None = Field(default=None, description="the deployed student: a run's directory, or a file of weights")


class MultiTask(RegimeOptions):
    """An auxiliary head that is thrown away: `inputs` rebuilds a coarse input, `groups` tells the input's group."""

    regime: ClassVar[Regime] = "multi_task"
    procedure: ClassVar[str] = (
        "objectives + weight (loss of an extra head on the last features): inputs: its mean squared difference to "
        "the input made coarse; groups: its cross-entropy with the input's group"
    )
    paper: ClassVar[str] = (
        "Caruana 1997, doi:10.1023/A:1007379606734; rebuilding inputs: Le, Patterson, White 2018 (supervised "
        "autoencoders), NeurIPS"
    )
    use: ClassVar[str] = "few labels, and something else to be learnt from the same inputs"
    data: ClassVar[str] = 'labels; for auxiliary = "groups" a training split with groups'
    table: ClassVar[str] = "[distill.multi_task]"

    auxiliary: Literal["inputs", "groups"] = Field(default="inputs", description="what the extra head tells")
    weight: NonNegative = Field(default=0.1, description="of the extra head's loss")


class Reverse(RegimeOptions):
    """The student helps the teacher first. It has no options."""

    regime: ClassVar[Regime] = "reverse"
    procedure: ClassVar[str] = (
        "a student learns the labels and then helps train the teacher further, which teaches a fresh student"
    )
    paper: ClassVar[str] = "Yuan et al. 2020, arXiv:1909.11723"
    use: ClassVar[str] = "a poor or badly trained teacher; where the help does not pay, the teacher as it was teaches"
    data: ClassVar[str] = "labels; a teacher with weights to train (no black box)"


REGIME_RECORDS: tuple[type[RegimeOptions], ...] = (
    Offline,
    SelfDistillation,
    Online,
    MultiTeacher,
    Progressive,
    Curriculum,
    SemiSupervised,
    DataFree,
    Adversarial,
    Continual,
    Reverse,
    MultiTask,
)
