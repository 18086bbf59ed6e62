"""Teachers' features: pairing by resolution, alignment, and the cache."""

import pytest
import torch
from torch import nn

from edgekd.core.spaces import SPACES
from edgekd.errors import ConfigurationError
from edgekd.nn.students import Student
from edgekd.records import FitNet
from edgekd.tasks.teachers import residual_teacher
from edgekd.train.features import FeatureLink, TeacherFeatures, aligned, layer_shapes, pair_layers
from edgekd.train.teachers import BlackBox

CPU = torch.device("cpu")


def student_of_images():
    choices = {"resolution": 28, "stem_stride": 2, "kernel": 3, "width": 4, "depth": 1, "expansion": 2}
    return Student(SPACES["inverted-residual"].architecture(choices, (1, 28, 28), 10))


def test_layers_pair_by_how_far_they_are_shrunk():
    student, teacher = student_of_images().eval(), residual_teacher(1, 10, (8, 16, 24), (3, 3)).eval()
    ours, theirs = (layer_shapes(model, torch.zeros(1, 1, 28, 28)) for model in (student, teacher))
    pairs = pair_layers(ours, theirs, (1, 28, 28), (1, 28, 28))
    assert [(ours[a][1:], theirs[b][1:]) for a, b in pairs] == [
        ((14, 14), (14, 14)),
        ((7, 7), (7, 7)),
        ((4, 4), (4, 4)),
    ]


def test_a_student_of_another_resolution_pairs_by_shrinking_not_by_size():
    shapes = {"a": (4, 14, 14), "b": (8, 7, 7)}
    teacher = {"x": (8, 28, 28), "y": (16, 14, 14), "z": (32, 7, 7)}
    assert pair_layers(shapes, teacher, (1, 28, 28), (1, 56, 56)) == (("a", "x"), ("b", "y"))


def test_layers_too_far_apart_still_give_one_pair():
    assert pair_layers({"a": (4, 16, 16)}, {"x": (8, 2, 2)}, (1, 16, 16), (1, 16, 16)) == (("a", "x"),)


def test_a_student_of_the_last_samples_is_shown_the_last_part_of_the_map():
    features = torch.arange(16.0).view(1, 1, 1, 16)
    shown = aligned(features, (1, 4), (6, 1, 64), (6, 1, 128))
    assert shown.flatten().tolist() == [8.5, 10.5, 12.5, 14.5]
    assert aligned(features, (1, 16), (6, 1, 128), (6, 1, 128)) is features


def test_the_cache_gives_the_features_and_knows_another_teacher(tmp_path):
    inputs, rows = torch.randn(300, 1, 28, 28), torch.tensor([299, 0, 7])
    folders = set()
    for seed in (0, 1):
        torch.manual_seed(seed)
        teacher = residual_teacher(1, 10, (8, 16), (3, 3))
        plain, stored = (TeacherFeatures(teacher, inputs, CPU, cache) for cache in (None, tmp_path))
        for features in (plain, stored):
            features.select(["3", "4"])
        for name, found in stored.batch(rows).items():
            assert found.dtype == torch.float32
            torch.testing.assert_close(found, plain.batch(rows)[name], rtol=2e-3, atol=2e-3)
        folders |= set(tmp_path.iterdir())
        # Once stored, the teacher itself is no longer asked.
        with torch.no_grad():
            for parameter in teacher.parameters():
                parameter.zero_()
        assert stored.batch(rows)["3"].abs().sum() > 0
    assert len(folders) == 2


def test_a_black_box_is_refused():
    with pytest.raises(ConfigurationError, match=r".onnx or .pt2 file is a black box"):
        TeacherFeatures(BlackBox(lambda inputs: inputs.flatten(1)), torch.randn(2, 1, 8, 8), CPU)
    with pytest.raises(ConfigurationError, match=r"none of its layers gives maps \(B, C, H, W\)"):
        TeacherFeatures(nn.Flatten(), torch.randn(2, 1, 8, 8), CPU)


def test_wrong_layer_names_are_all_told_and_the_right_ones_once():
    student, teacher = student_of_images(), student_of_images()
    inputs = torch.randn(2, 1, 8, 8)
    shapes = layer_shapes(student, inputs[:1])
    real = next(iter(shapes))
    wrong = FitNet(layers=(("nowhere", real), (real, "elsewhere"), ("gone", "missing")))
    with pytest.raises(ConfigurationError) as told:
        FeatureLink([wrong], student, inputs[:1], TeacherFeatures(teacher, inputs, CPU))
    lines = str(told.value).splitlines()
    missing = [("student", "nowhere"), ("student", "gone"), ("teacher", "elsewhere"), ("teacher", "missing")]
    assert [line for line in lines if " has no layer " in line] == [
        f"distill.objectives, fitnet: the {whose} has no layer {name!r} with a feature map" for whose, name in missing
    ]
    every = ", ".join(shapes)
    assert [line for line in lines if every in line] == [f"the student has {every}", f"the teacher has {every}"]
