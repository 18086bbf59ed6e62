"""The parts that regimes are made of, each on its own."""

import numpy as np
import pytest
import torch
from digits_task import load
from torch import nn

from edgekd.errors import ConfigurationError
from edgekd.pipeline.distillation.teaching import unlabelled_classes
from edgekd.pipeline.distillation.verdict import not_robust, verdict_on
from edgekd.records import Curriculum, DataFree, Distillation, SemiSupervised, Training
from edgekd.tasks import Split
from edgekd.tasks.teachers import residual_teacher
from edgekd.train.regimes.adversarial import DiscriminatedLoss, attack
from edgekd.train.regimes.continual import split_old_and_new
from edgekd.train.regimes.multi_task import coarse
from edgekd.train.regimes.offline import easiest_first, growing
from edgekd.train.regimes.setting import for_steps
from edgekd.train.regimes.unlabelled import hide_labels, pseudo_labels
from edgekd.train.synthesis import GeneratorTraining, invert, statistics_distances
from edgekd.train.teachers import BlackBox

CPU = torch.device("cpu")


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))


@pytest.mark.parametrize("steps", [1, 5])
def test_an_attack_stays_within_its_bound_and_does_harm(steps):
    model, inputs = linear(), torch.randn(64, 1, 4, 4)
    labels = model(inputs).argmax(1)
    moved = attack(model, inputs, labels, 0.1, steps)
    assert (moved - inputs).abs().max() <= 0.1 + 1e-6
    loss = nn.functional.cross_entropy
    assert loss(model(moved), labels) > loss(model(inputs), labels)
    assert not moved.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


def test_easy_inputs_come_first_and_all_of_them_in_the_end():
    logits = torch.tensor([[3.0, 0.0], [0.5, 0.0], [0.0, 9.0], [4.0, 0.0]])
    labels = torch.tensor([0, 0, 0, 0])
    assert easiest_first(logits, labels, Curriculum(order_by="margin")).tolist() == [3, 0, 1, 2]
    assert easiest_first(logits, labels, Curriculum(order_by="confidence")).tolist() == [2, 3, 0, 1]
    order = torch.arange(100)
    choose = growing(order, Curriculum(start_share=0.2, full_at=0.5))
    seen = [set(choose(epoch, 10, torch.Generator().manual_seed(0)).tolist()) for epoch in range(10)]
    assert all(len(choose(epoch, 10, torch.Generator())) == 100 for epoch in range(10))
    assert seen[0] == set(range(20))
    assert all(a <= b for a, b in zip(seen, seen[1:], strict=False))
    assert seen[5] == set(range(100))


def test_labels_are_hidden_evenly_over_the_classes():
    train = load().train
    labelled, rest = hide_labels(train, SemiSupervised(labels=43), seed=0)
    counts = np.bincount(labelled.labels, minlength=10)
    assert counts.sum() == 43
    assert set(counts) == {4, 5}
    assert len(rest) == len(train) - 43
    together = np.concatenate([labelled.inputs, rest]).reshape(len(train), -1)
    original = train.inputs.reshape(len(train), -1)
    assert (together[np.lexsort(together.T)] == original[np.lexsort(original.T)]).all()
    assert not np.array_equal(hide_labels(train, SemiSupervised(labels=43), seed=1)[0].inputs, labelled.inputs)
    by_group, _ = hide_labels(train, SemiSupervised(label_groups=("writer 1",)), seed=0)
    assert set(by_group.groups) == {"writer 1"}
    with pytest.raises(ConfigurationError, match=r"labels = 9 \(--labels\): there are 10 classes"):
        hide_labels(train, SemiSupervised(labels=9), seed=0)


def test_classes_without_any_label_are_found():
    task = load()
    assert unlabelled_classes(task.train, task) == []
    assert unlabelled_classes(task.train.part(~np.isin(task.train.labels, (3, 7))), task) == ["3", "7"]
    several = Split(np.zeros((4, 1, 2, 2), np.float32), np.eye(10, dtype=bool)[[0, 1, 2, 2]])
    assert unlabelled_classes(several, task) == list("3456789")
    values = Split(np.zeros((4, 1, 2, 2), np.float32), np.zeros((4, 10), np.float32))
    assert unlabelled_classes(values, task) == []


def test_a_robust_student_that_is_not_is_told_loudly():
    assert not_robust({}) == ""
    assert not_robust({"robust_accuracy": 0.5, "scratch_robust_accuracy": 0.4}) == ""
    for student in (0.3, 0.4):
        said = not_robust({"robust_accuracy": student, "scratch_robust_accuracy": 0.4})
        assert said.startswith("THE STUDENT IS NO MORE ROBUST") and f"{student:.4f}" in said


def test_what_robustness_costs_on_clean_inputs_is_not_called_hurt():
    robust = Distillation(regime="adversarial")
    assert "robust_accuracy against scratch_robust_accuracy" in verdict_on((-0.2, -0.1), robust)
    assert "distillation hurt" in verdict_on((-0.2, -0.1), Distillation())
    assert "no difference" in verdict_on((-0.2, 0.1), robust)


def test_a_black_box_without_batch_norms_is_told_apart_from_a_teacher_without():
    for teacher, said in ((BlackBox(lambda inputs: inputs), "black box"), (nn.Flatten(), "no batch norm")):
        with pytest.raises(ConfigurationError, match=said):
            invert(teacher, (1, 8, 8), DataFree(inputs=64, iterations=1), 0, torch.device("cpu"))


def test_only_sure_choices_become_labels():
    logits = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.1, 0.0], [0.0, 9.0]])
    known = torch.tensor([1])
    labels, used = pseudo_labels(logits, known, SemiSupervised(threshold=0.9))
    assert labels.tolist() == [1, 0, -1, 1]
    assert used == pytest.approx(2 / 3)
    assert pseudo_labels(logits, known, SemiSupervised(pseudo_labels=False))[0].tolist() == [1, -1, -1, -1]


def test_made_inputs_meet_the_teachers_statistics_better_than_noise():
    task = load()
    torch.manual_seed(0)
    teacher = residual_teacher(1, 10, (8, 16), (3, 3), dropout=0.0).train()
    for _ in range(30):
        teacher(torch.from_numpy(task.train.inputs[:256]))
    teacher.eval()
    norm = next(module for module in teacher.modules() if isinstance(module, nn.BatchNorm2d))

    def distance(inputs):
        seen = teacher[0](inputs)
        return float((seen.mean((0, 2, 3)) - norm.running_mean).square().mean().detach())

    before = [value.clone() for value in teacher.state_dict().values()]
    made = invert(teacher, task.input_shape, DataFree(inputs=64, iterations=80), 0, CPU)
    assert made.shape == (64, 1, 8, 8)
    assert distance(made) < distance(torch.randn(64, 1, 8, 8)) / 3
    assert all(torch.equal(a, b) for a, b in zip(before, teacher.state_dict().values(), strict=True))
    with pytest.raises(ConfigurationError, match="no batch norm"):
        invert(linear(), (1, 4, 4), DataFree(), 0, CPU)


def test_a_generator_learns_all_classes_the_statistics_and_to_find_disagreement():
    task = load()
    torch.manual_seed(0)
    teacher = residual_teacher(1, 10, (8, 16), (3, 3), dropout=0.0)
    images, labels = torch.from_numpy(task.train.inputs), torch.from_numpy(task.train.labels)
    optimizer = torch.optim.Adam(teacher.parameters(), 1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(teacher(images[:256]), labels[:256]).backward()
        optimizer.step()
    options = DataFree(source="generator", disagreement_weight=1.0)
    source = GeneratorTraining(teacher, (1, 8, 8), (1, 6, 6), options, 0, CPU)

    def merit():
        with torch.no_grad(), statistics_distances(teacher) as distances:
            chosen = teacher(source.sample(256)).argmax(1)
        return len(set(chosen.tolist())), float(torch.stack(distances).mean())

    classes, distance = merit()
    for _ in range(60):
        source.step()
    later = merit()
    assert later[0] >= max(6, classes)
    assert later[1] < distance / 2
    seen, chosen, logits = source.batch(nn.Sequential(nn.Flatten(), nn.Linear(36, 10)), 16)
    assert seen.shape == (16, 1, 6, 6)
    assert torch.equal(chosen, logits.argmax(1))
    assert "disagreement" in source.said()
    signal = GeneratorTraining(residual_teacher(3, 4, (8,), (1, 5)), (3, 1, 30), (3, 1, 16), options, 0, CPU)
    assert signal.sample(5).shape == (5, 3, 1, 30)
    assert signal.batch(nn.Sequential(nn.Flatten(), nn.Linear(48, 4)), 4)[0].shape == (4, 3, 1, 16)


def test_old_and_new_data_share_no_group():
    train = load().train
    old, new = split_old_and_new(train, 0.5)
    assert not set(old.groups) & set(new.groups)
    assert len(old) + len(new) == len(train)
    plain = Split(train.inputs[:10], train.labels[:10])
    assert [len(part) for part in split_old_and_new(plain, 0.3)] == [3, 7]
    with pytest.raises(ConfigurationError, match="leaves no old or no new data"):
        split_old_and_new(Split(train.inputs[:3], train.labels[:3]), 0.01)


def test_few_inputs_stand_several_times_in_an_epoch():
    split = Split(np.zeros((50, 1, 2, 2), np.float32), np.arange(50))
    schedule = Training(epochs=3, learning_rate=1e-3, batch_size=32)
    repeated, longer = for_steps(schedule, 600, split)
    assert len(repeated) % 50 == 0
    assert (np.bincount(repeated.labels) == len(repeated) // 50).all()
    assert longer.epochs <= 60
    assert longer.epochs * (len(repeated) // 32) >= 600
    same, _ = for_steps(schedule, 2, split)
    assert same is split


def test_the_discriminator_learns_and_the_student_is_pushed_towards_the_teacher():
    from edgekd.records import Hinton
    from edgekd.train.objectives.signals import Signals

    torch.manual_seed(0)
    loss = DiscriminatedLoss([Hinton(weight=1e-6)], 4, 1.0, 0)
    teacher = torch.randn(128, 4) + torch.tensor([3.0, 0, 0, 0])
    student = (torch.randn(128, 4) + torch.tensor([0, 3.0, 0, 0])).requires_grad_()
    for _ in range(200):
        value = loss(Signals(student, torch.zeros(128, dtype=torch.long), teacher))
    (gradient,) = torch.autograd.grad(value, student)
    # A step against the gradient raises what the teacher has high and lowers what gives the student away.
    assert gradient.mean(0)[0] < 0 < gradient.mean(0)[1]


def test_a_coarse_input_is_an_average_over_places():
    signal = torch.arange(32.0).view(1, 1, 1, 32)
    assert coarse(signal).tolist() == [[2 * i + 0.5 for i in range(16)]]
    assert coarse(torch.ones(2, 3, 8, 8)).shape == (2, 48)
