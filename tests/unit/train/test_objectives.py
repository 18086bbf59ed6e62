"""Each objective against finite differences, and against its formula written out slowly with numpy."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from edgekd.errors import ConfigurationError
from edgekd.records import (
    OBJECTIVE_RECORDS,
    Attention,
    Dist,
    Distillation,
    Dkd,
    FitNet,
    Hard,
    Hinton,
    LogitStandardization,
    Relational,
)
from edgekd.train.objectives import OBJECTIVES, Loss
from edgekd.train.objectives.signals import UNLABELLED, FeaturePair, Signals

RESPONSES = [
    Hard(),
    Hard(label_smoothing=0.2),
    Hinton(temperature=1),
    Hinton(temperature=3),
    Dkd(),
    Dkd(temperature=1, alpha=2, beta=8),
    Dist(),
    Dist(temperature=4, gamma=2),
    LogitStandardization(),
]
FEATURES = [
    FitNet(),
    FitNet(normalize=False),
    Attention(),
    Attention(power=3),
    Relational(),
    Relational(distance_weight=0),
    Relational(form="similarity"),
]


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(5, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    return Signals(student, torch.randint(0, 4, (5,), generator=generator), teacher)


def maps(seed=0):
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(4, 3, 2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    return student, torch.randn(4, 3, 2, 3, generator=generator, dtype=torch.float64)


def of_features(objective, student, teacher):
    signals = batch()
    features = {objective: (FeaturePair(student, teacher),)}
    return OBJECTIVES[objective.kind](Signals(signals.student_logits, signals.labels, features=features), objective)


def softmax(values):
    exponentials = np.exp(values - values.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def kl(first, second):
    return float((first * np.log(first / second)).sum(-1).mean())


def arrays(signals):
    return signals.student_logits.detach().numpy(), signals.teacher().numpy(), signals.labels.numpy()


def test_every_kind_has_a_record_and_a_function():
    assert [record.model_fields["kind"].default for record in OBJECTIVE_RECORDS] == list(OBJECTIVES)
    tried = {objective.kind for objective in (*RESPONSES, *FEATURES)}
    assert tried == set(OBJECTIVES)


@pytest.mark.parametrize("objective", RESPONSES, ids=repr)
def test_each_responses_gradient_equals_finite_differences(objective):
    signals = batch()
    assert torch.autograd.gradcheck(
        lambda logits: OBJECTIVES[objective.kind](Signals(logits, signals.labels, signals.teacher_logits), objective),
        (signals.student_logits,),
    )


@pytest.mark.parametrize("objective", FEATURES, ids=repr)
def test_each_features_gradient_equals_finite_differences(objective):
    student, teacher = maps()
    assert torch.autograd.gradcheck(lambda features: of_features(objective, features, teacher), (student,))


@pytest.mark.parametrize("objective", [*RESPONSES[2:], *FEATURES], ids=repr)
def test_each_is_nothing_where_student_and_teacher_agree(objective):
    if objective.needs_features:
        _, teacher = maps()
        standard = (teacher - teacher.mean((0, 2, 3), keepdim=True)) / teacher.std(
            (0, 2, 3), keepdim=True, correction=0
        )
        value = of_features(objective, standard, standard)
    else:
        signals = batch()
        value = OBJECTIVES[objective.kind](Signals(signals.teacher(), signals.labels, signals.teacher()), objective)
    assert abs(float(value)) < 1e-9


def test_hard_equals_its_formula_and_passes_over_what_has_no_label():
    signals = batch()
    student, _, labels = arrays(signals)
    target = 0.8 * np.eye(4)[labels] + 0.2 / 4
    expected = -(target * np.log(softmax(student))).sum(1)
    assert float(OBJECTIVES["hard"](signals, Hard(label_smoothing=0.2))) == pytest.approx(expected.mean())
    partly = signals.labels.clone()
    partly[2:] = UNLABELLED
    found = OBJECTIVES["hard"](Signals(signals.student_logits, partly), Hard(label_smoothing=0.2))
    assert float(found) == pytest.approx(expected[:2].mean())
    nothing = Signals(signals.student_logits, torch.full_like(partly, UNLABELLED))
    assert float(OBJECTIVES["hard"](nothing, Hard())) == 0


def test_hinton_equals_its_formula():
    signals = batch()
    student, teacher, _ = arrays(signals)
    expected = 9 * kl(softmax(teacher / 3), softmax(student / 3))
    assert float(OBJECTIVES["hinton"](signals, Hinton(temperature=3))) == pytest.approx(expected)


def test_dkd_equals_its_formula_and_with_its_special_weights_is_hinton():
    signals = batch()
    student, teacher, labels = arrays(signals)
    rows, expected = np.arange(5), 0.0
    p_s, p_t = softmax(student / 2), softmax(teacher / 2)
    for i, y in zip(rows, labels, strict=True):
        pair_s, pair_t = (np.array([p[i, y], 1 - p[i, y]]) for p in (p_s, p_t))
        rest_s, rest_t = (np.delete(p[i], y) / (1 - p[i, y]) for p in (p_s, p_t))
        expected += 4 * (1.5 * kl(pair_t, pair_s) + 3 * kl(rest_t, rest_s)) / 5
    found = OBJECTIVES["dkd"](signals, Dkd(temperature=2, alpha=1.5, beta=3))
    assert float(found) == pytest.approx(expected)
    # KL = KL of the pairs + (1 - p_t(y)) KL of the rest: equation 6 of the paper, here for one input.
    one = Signals(signals.student_logits[:1], signals.labels[:1], signals.teacher()[:1])
    beta = 1 - softmax(teacher[:1] / 2)[0, labels[0]]
    assert float(OBJECTIVES["dkd"](one, Dkd(temperature=2, alpha=1, beta=beta))) == pytest.approx(
        float(OBJECTIVES["hinton"](one, Hinton(temperature=2)))
    )


def test_dkd_takes_the_teachers_choice_where_there_is_no_label():
    signals = batch()
    chosen = Signals(signals.student_logits, signals.teacher().argmax(1), signals.teacher())
    unknown = Signals(signals.student_logits, torch.full((5,), UNLABELLED), signals.teacher())
    assert float(OBJECTIVES["dkd"](unknown, Dkd())) == float(OBJECTIVES["dkd"](chosen, Dkd()))


def test_dist_equals_correlations_of_numpy():
    signals = batch()
    student, teacher, _ = arrays(signals)
    p_s, p_t = softmax(student / 2), softmax(teacher / 2)
    rows = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(p_s, p_t, strict=True)])
    columns = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(p_s.T, p_t.T, strict=True)])
    expected = 4 * (1.5 * (1 - rows) + 0.5 * (1 - columns))
    assert float(OBJECTIVES["dist"](signals, Dist(temperature=2, beta=1.5, gamma=0.5))) == pytest.approx(expected)


def test_logit_standardization_does_not_see_shift_and_scale_of_the_teacher():
    signals = batch()
    student, teacher, _ = arrays(signals)

    def z(logits):
        return (logits - logits.mean(1, keepdims=True)) / logits.std(1, ddof=1, keepdims=True)

    expected = 4 * kl(softmax(z(teacher) / 2), softmax(z(student) / 2))
    found = float(OBJECTIVES["logit_standardization"](signals, LogitStandardization()))
    assert found == pytest.approx(expected, rel=1e-5)
    moved = Signals(signals.student_logits, signals.labels, 7 * signals.teacher() - 3)
    assert float(OBJECTIVES["logit_standardization"](moved, LogitStandardization())) == pytest.approx(found, rel=1e-5)


def test_fitnet_and_attention_equal_their_formulas():
    student, teacher = maps()
    s, t = student.detach().numpy(), teacher.numpy()
    assert float(of_features(FitNet(normalize=False), student, teacher)) == pytest.approx(((s - t) ** 2).mean())
    a_s, a_t = ((f**2).mean(1).reshape(4, -1) for f in (s, t))
    a_s, a_t = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (a_s, a_t))
    assert float(of_features(Attention(), student, teacher)) == pytest.approx(((a_s - a_t) ** 2).sum(1).mean())


def test_relational_equals_its_formula():
    student, teacher = maps()
    s, t = student.detach().numpy().mean((2, 3)), teacher.numpy().mean((2, 3))

    def relations(e):
        pairs = np.array([np.linalg.norm(e[i] - e[j]) for i in range(4) for j in range(i + 1, 4)])
        cosines = np.zeros((4, 4, 4))
        for i in range(4):
            for j in range(4):
                for k in range(4):
                    if i not in (j, k):
                        a, b = e[j] - e[i], e[k] - e[i]
                        cosines[i, j, k] = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
        return pairs / pairs.mean(), cosines

    def huber(difference):
        size = np.abs(difference)
        return np.where(size < 1, size**2 / 2, size - 0.5).mean()

    (d_s, c_s), (d_t, c_t) = relations(s), relations(t)
    found = float(of_features(Relational(distance_weight=2, angle_weight=3), student, teacher))
    assert found == pytest.approx(2 * huber(d_s - d_t) + 3 * huber(c_s - c_t), rel=1e-6)


def test_similarity_equals_its_formula_whatever_the_widths():
    student, _ = maps()
    teacher = torch.randn(4, 7, 2, 2, dtype=torch.float64)
    grams = [f.reshape(4, -1) @ f.reshape(4, -1).T for f in (student.detach().numpy(), teacher.numpy())]
    g_s, g_t = (g / np.linalg.norm(g, axis=1, keepdims=True) for g in grams)
    expected = ((g_s - g_t) ** 2).sum() / 16
    assert float(of_features(Relational(form="similarity"), student, teacher)) == pytest.approx(expected)


@pytest.mark.parametrize("outputs", ["multi_label", "regression"])
def test_independent_labels_and_values_have_their_own_losses(outputs):
    signals = batch()
    student, teacher, _ = arrays(signals)
    labels = torch.randint(0, 2, (5, 4), generator=torch.Generator().manual_seed(1)).double()
    other = Signals(signals.student_logits, labels, signals.teacher(), outputs=outputs)
    y, sigmoid = labels.numpy(), lambda x: 1 / (1 + np.exp(-x))
    if outputs == "regression":
        expected = ((student - y) ** 2).mean(), ((student - teacher) ** 2).mean()
    else:
        p, q = sigmoid(student / 3), sigmoid(teacher / 3)
        hard = -(y * np.log(sigmoid(student)) + (1 - y) * np.log(1 - sigmoid(student))).mean()
        expected = hard, 9 * (q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p))).mean()
    assert float(OBJECTIVES["hard"](other, Hard())) == pytest.approx(expected[0])
    assert float(OBJECTIVES["hinton"](other, Hinton())) == pytest.approx(expected[1])
    for objective in (Hard(), Hinton()):
        assert torch.autograd.gradcheck(
            lambda logits, objective=objective: OBJECTIVES[objective.kind](
                Signals(logits, labels, signals.teacher(), outputs=outputs), objective
            ),
            (signals.student_logits,),
        )
    some = labels.clone()
    some[0, 1:] = torch.nan
    known = Signals(signals.student_logits[1:], labels[1:], outputs=outputs)
    assert float(OBJECTIVES["hard"](Signals(signals.student_logits, some, outputs=outputs), Hard())) == pytest.approx(
        (16 * float(OBJECTIVES["hard"](known, Hard())) + first_term(student, y, outputs)) / 17
    )
    none = Signals(signals.student_logits, torch.full_like(labels, torch.nan), outputs=outputs)
    assert float(OBJECTIVES["hard"](none, Hard())) == 0


def first_term(student, y, outputs):
    if outputs == "regression":
        return (student[0, 0] - y[0, 0]) ** 2
    return np.log1p(np.exp(student[0, 0])) - y[0, 0] * student[0, 0]


def test_objectives_that_mean_nothing_for_the_outputs_are_refused_at_once():
    loss = Loss([Hard(label_smoothing=0.1), Hinton(), Dkd(), Dist(), LogitStandardization()])
    loss.require("classes")
    with pytest.raises(ConfigurationError) as error:
        loss.require("regression")
    said = str(error.value).splitlines()
    assert len(said) == 4
    assert all(f"'{kind}' compares" in str(error.value) for kind in ("dkd", "dist", "logit_standardization"))
    assert "label_smoothing has no meaning for values" in said[3]
    with pytest.raises(ConfigurationError) as error:
        loss.require("multi_label")
    assert "smoothing" not in str(error.value)
    Loss([Hard(), Hinton(), FitNet(), Attention(), Relational()]).require("regression")


def test_the_loss_is_the_weighted_sum_and_weights_move_over_the_run():
    signals = batch()
    hard, soft = Hard(weight=0.3), Hinton(weight=0.7)
    torch.testing.assert_close(Loss([hard, soft])(signals), Loss([hard])(signals) + Loss([soft])(signals))
    moving = Loss([Hinton(weight=0.8, weight_end=0.2)])
    whole = Loss([Hinton()])(signals)
    for progress, weight in ((0.0, 0.8), (0.5, 0.5), (1.0, 0.2)):
        torch.testing.assert_close(moving(signals, progress), weight * whole)
    with pytest.raises(ConfigurationError, match="weight above 0"):
        Loss([Hard(weight=0)])
    with pytest.raises(ConfigurationError, match="leave the outputs untaught"):
        Loss([FitNet(), Hard(weight=0)])


def test_unknown_kinds_parameters_and_impossible_values_are_all_refused_at_once():
    wrong = [{"kind": "hintn"}, {"kind": "hard", "temperature": 3}, {"kind": "dkd", "temperature": 0}, {"weight": 1}]
    with pytest.raises(ValidationError) as error:
        Distillation.model_validate({"objectives": wrong})
    kinds = [detail["type"] for detail in error.value.errors()]
    assert kinds == ["union_tag_invalid", "extra_forbidden", "greater_than", "union_tag_not_found"]


def test_the_culprit_of_a_nan_is_named():
    signals = batch()
    broken = Signals(signals.student_logits, signals.labels, torch.full_like(signals.teacher(), float("nan")))
    loss = Loss([Hard(), Hinton()])
    assert loss.culprit(broken) == "the term 'hinton'"
    logits = Signals(torch.full((5, 4), float("inf")), signals.labels, signals.teacher())
    assert loss.culprit(logits) == "the student's logits"
