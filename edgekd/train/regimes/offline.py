"""A trained teacher, its answers to the training inputs, and in which order they are learnt."""

from __future__ import annotations

import torch
from torch import Tensor

from edgekd.errors import ConfigurationError
from edgekd.records import Curriculum
from edgekd.tasks import Outputs
from edgekd.train.additions import Additions, ChooseRows
from edgekd.train.examples import labels_of
from edgekd.train.regimes.setting import Outcome, Setting


def offline(setting: Setting) -> Outcome:
    """The teacher is trained beforehand and does not change (Hinton et al. 2015, arXiv:1503.02531)."""
    student = setting.fresh_student()
    trained = setting.learn(student, "student", teacher_logits=setting.teacher_logits())
    return Outcome(student, trained, trained.steps)


def curriculum(setting: Setting) -> Outcome:
    """Offline, easy inputs first (Bengio et al. 2009, doi:10.1145/1553374.1553380)."""
    student, logits = setting.fresh_student(), setting.teacher_logits()
    order = easiest_first(logits, labels_of(setting.data.train), setting.recipe.curriculum, setting.outputs)
    additions = Additions(choose_rows=growing(order, setting.recipe.curriculum))
    trained = setting.learn(student, "student", teacher_logits=logits, additions=additions)
    return Outcome(student, trained, trained.steps)


def easiest_first(logits: Tensor, labels: Tensor, options: Curriculum, outputs: Outputs = "classes") -> Tensor:
    """Rows (N,) by falling ease: the teacher's highest probability, or its margin for the label over the next class.

    Of independent labels the mean over them of the surer side's logit, or of the label's own side. Values: the margin
    is how near the teacher comes to the label.

    Raises:
        ConfigurationError: values by confidence, of which they have none.
    """
    if outputs == "regression":
        if options.order_by == "confidence":
            raise ConfigurationError(
                "distill.curriculum.order_by = 'confidence': a teacher of values has none: use 'margin'"
            )
        ease = -(logits - labels).square().mean(1)
    elif outputs == "multi_label":
        side = logits.abs() if options.order_by == "confidence" else logits * (2 * labels - 1)
        ease = side.mean(1)
    elif options.order_by == "confidence":
        ease = logits.softmax(1).amax(1)
    else:
        own = logits.gather(1, labels[:, None])[:, 0]
        ease = own - logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    return ease.argsort(descending=True, stable=True)


def growing(order: Tensor, options: Curriculum) -> ChooseRows:
    """Rows of an epoch drawn from the easiest share of the data, as often over as it takes for equally many steps."""

    def choose(epoch: int, epochs: int, generator: torch.Generator) -> Tensor:
        until = max(1e-9, options.full_at * epochs)
        share = min(1.0, options.start_share + (1 - options.start_share) * epoch / until)
        count = max(1, round(share * len(order)))
        rounds = -(-len(order) // count)
        drawn = [torch.randperm(count, generator=generator) for _ in range(rounds)]
        return order[torch.cat(drawn)[: len(order)]]

    return choose
