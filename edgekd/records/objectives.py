"""The teaching signals by kind, each with its own parameters: one of another kind is an unknown key."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from edgekd.records.base import NonNegative, Record

Temperature = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
LayerPairs = tuple[tuple[str, str], ...]


class Objective(Record):
    """One term of the loss. The terms' weighted sum is minimised.

    `weight` holds for the whole run, or with `weight_end` moves linearly from `weight` to it over the planned steps.
    The class variables say to people what the kind is; `beside_hard` are the weights of the hard labels and of
    this term where the kind is asked for by name alone.
    """

    formula: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    use: ClassVar[str] = ""
    beside_hard: ClassVar[tuple[float, float]] = (0.3, 0.7)
    needs_teacher: ClassVar[bool] = True
    needs_features: ClassVar[bool] = False
    classes_only: ClassVar[bool] = False

    kind: str
    weight: NonNegative = Field(default=1.0, description="weight of the term, at the start where weight_end is given")
    weight_end: NonNegative | None = Field(default=None, description="weight at the end of the run, reached linearly")

    def weight_at(self, progress: float) -> float:
        """The weight when a share `progress` (0 to 1) of the planned steps is done."""
        return self.weight if self.weight_end is None else self.weight + (self.weight_end - self.weight) * progress

    @property
    def ever_counts(self) -> bool:
        """Whether the weight is above 0 at any time."""
        return self.weight > 0 or (self.weight_end or 0) > 0


class Hard(Objective):
    """The labels themselves."""

    formula: ClassVar[str] = (
        "-sum_k q_k log softmax(s)_k, q = (1 - e) onehot(y) + e / K; "
        "independent labels: binary cross-entropy; values: (s - y)^2"
    )
    paper: ClassVar[str] = "cross-entropy; label smoothing: Szegedy et al. 2016, arXiv:1512.00567"
    use: ClassVar[str] = "labels are plenty; alone it is training from scratch"
    needs_teacher: ClassVar[bool] = False
    beside_hard: ClassVar[tuple[float, float]] = (0.0, 1.0)

    kind: Literal["hard"] = "hard"
    label_smoothing: Annotated[
        float, Field(ge=0, lt=1, description="e: share of the target spread over all classes")
    ] = 0.0


class Hinton(Objective):
    """Soft targets at a temperature."""

    formula: ClassVar[str] = (
        "T^2 KL(softmax(t / T) || softmax(s / T)); independent labels: the same of each label's two sides; "
        "values: (s - t)^2, without T"
    )
    paper: ClassVar[str] = "Hinton, Vinyals, Dean 2015, arXiv:1503.02531"
    use: ClassVar[str] = "the default; without a hard term it learns from unlabelled inputs too"

    kind: Literal["hinton"] = "hinton"
    temperature: Temperature = Field(default=3.0, description="T: higher shows more of the unlikely classes")


class Dkd(Objective):
    """Soft targets with the target class and the other classes weighted apart."""

    formula: ClassVar[str] = "T^2 (alpha KL(b_t || b_s) + beta KL(p_t without y || p_s without y))"
    paper: ClassVar[str] = "Zhao et al. 2022 (decoupled KD), arXiv:2203.08679"
    use: ClassVar[str] = (
        "a confident teacher, whose soft targets alone say little about the other classes; classes only"
    )
    beside_hard: ClassVar[tuple[float, float]] = (0.5, 0.5)
    classes_only: ClassVar[bool] = True

    kind: Literal["dkd"] = "dkd"
    temperature: Temperature = Field(default=3.0, description="T")
    alpha: NonNegative = Field(default=1.0, description="weight of target class against all others")
    beta: NonNegative = Field(default=2.0, description="weight of the distribution among the others; papers use 1 to 8")


class Dist(Objective):
    """Correlation instead of exact match, between classes and within a class."""

    formula: ClassVar[str] = "T^2 (beta (1 - pearson of rows) + gamma (1 - pearson of columns)) of softmax(. / T)"
    paper: ClassVar[str] = "Huang et al. 2022 (DIST), arXiv:2205.10536"
    use: ClassVar[str] = (
        "a teacher far stronger than the student, whose exact probabilities are out of reach; classes only"
    )
    beside_hard: ClassVar[tuple[float, float]] = (0.5, 0.5)
    classes_only: ClassVar[bool] = True

    kind: Literal["dist"] = "dist"
    temperature: Temperature = Field(default=1.0, description="T")
    beta: NonNegative = Field(default=1.0, description="weight of the relation between classes of one input")
    gamma: NonNegative = Field(default=1.0, description="weight of the relation between inputs for one class")


class LogitStandardization(Objective):
    """Soft targets after each input's logits are standardised: their shape is taught, not their size."""

    formula: ClassVar[str] = "T^2 KL(softmax(z(t) / T) || softmax(z(s) / T)), z = (x - mean) / std over the classes"
    paper: ClassVar[str] = "Sun et al. 2024, arXiv:2403.01427"
    use: ClassVar[str] = "teacher and student logits of very different size; classes only"
    classes_only: ClassVar[bool] = True

    kind: Literal["logit_standardization"] = "logit_standardization"
    temperature: Temperature = Field(default=2.0, description="T, in standard deviations")


class Featured(Objective):
    """A signal from layers inside the teacher."""

    needs_features: ClassVar[bool] = True

    layers: LayerPairs = Field(
        default=(), description="pairs [student layer, teacher layer] by module name; empty pairs layers by resolution"
    )


class FitNet(Featured):
    """Hints: the teacher's feature maps, through a learned regressor that is thrown away."""

    formula: ClassVar[str] = "mean over pairs of mean (r(F_s) - F_t)^2, r a learned 1x1 convolution"
    paper: ClassVar[str] = "Romero et al. 2015 (FitNets), arXiv:1412.6550"
    use: ClassVar[str] = "few labels and a teacher of a like layout; costs a teacher pass or a cache of features"
    beside_hard: ClassVar[tuple[float, float]] = (1.0, 0.5)

    kind: Literal["fitnet"] = "fitnet"
    normalize: bool = Field(
        default=True, description="standardise the teacher's channels over the batch, so that weights carry over"
    )


class Attention(Featured):
    """Where the teacher looks: maps of activation strength."""

    formula: ClassVar[str] = "mean over pairs of |a(F_s) - a(F_t)|^2, a = l2-normalised mean over channels of |F|^p"
    paper: ClassVar[str] = "Zagoruyko, Komodakis 2017, arXiv:1612.03928"
    use: ClassVar[str] = "images or signals in which place matters; no regressor needed"
    beside_hard: ClassVar[tuple[float, float]] = (1.0, 10.0)

    kind: Literal["attention"] = "attention"
    power: Annotated[float, Field(ge=1, le=8, description="p: higher looks at peaks only")] = 2.0


class Relational(Featured):
    """How the inputs of a batch lie to each other in the teacher's last features."""

    formula: ClassVar[str] = (
        "distance_angle: w_d huber(d_s, d_t) + w_a huber(cos_s, cos_t), d over its mean; "
        "similarity: |G_s - G_t|^2 / B^2, G rows of F F' normalised"
    )
    paper: ClassVar[str] = (
        "Park et al. 2019 (RKD), arXiv:1904.05068; Tung, Mori 2019 (similarity-preserving), arXiv:1907.09682"
    )
    use: ClassVar[str] = "teacher and student of unlike architecture or output; embeddings"
    beside_hard: ClassVar[tuple[float, float]] = (1.0, 1.0)

    kind: Literal["relational"] = "relational"
    form: Literal["distance_angle", "similarity"] = Field(default="distance_angle", description="RKD, or similarities")
    distance_weight: NonNegative = Field(default=1.0, description="w_d")
    angle_weight: NonNegative = Field(default=2.0, description="w_a")


OBJECTIVE_RECORDS: tuple[type[Objective], ...] = (
    Hard,
    Hinton,
    Dkd,
    Dist,
    LogitStandardization,
    FitNet,
    Attention,
    Relational,
)
AnyObjective = Annotated[
    Hard | Hinton | Dkd | Dist | LogitStandardization | FitNet | Attention | Relational, Field(discriminator="kind")
]


def record_of_kind(kind: str) -> type[Objective] | None:
    """The record of a kind, or None where there is no such kind."""
    return next((record for record in OBJECTIVE_RECORDS if record.model_fields["kind"].default == kind), None)
