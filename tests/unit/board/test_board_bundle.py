"""Which bundle fits which board, and which bundles go."""

from __future__ import annotations

import gzip
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.board.provisioning import bundle as module
from edgekd.board.provisioning.bundle import WheelTarget, cached_bundle, find_bundle, parse_target, runtime_package
from edgekd.board.provisioning.bundle_store import superfluous_bundles
from edgekd.errors import BoardError, ConfigurationError


@pytest.mark.parametrize(
    ("tag", "python", "expected"),
    [
        ("manylinux_2_28_aarch64", "3.11", WheelTarget("aarch64", (2, 28), (3, 11))),
        ("manylinux2014_x86_64", "3.9", WheelTarget("x86_64", (2, 17), (3, 9))),
        ("manylinux_2_34_armv7l", "3.13", WheelTarget("armv7l", (2, 34), (3, 13))),
    ],
)
def test_platform_tags(tag, python, expected):
    assert parse_target(tag, python) == expected


@pytest.mark.parametrize(
    ("tag", "python", "words"),
    [
        ("linux_aarch64", "3.11", "not a platform tag"),
        ("manylinux_2_28", "3.11", "not a platform tag"),
        ("\x1b[31m", "3.11", "not a platform tag"),
        ("manylinux_2_28_riscv64", "3.11", "published for"),
        ("manylinux_2_5_x86_64", "3.11", "published for"),
        ("manylinux_2_28_aarch64", "3.8", "3.9 or newer"),
        ("manylinux_2_28_aarch64", "3", "3.9 or newer"),
        ("manylinux_2_28_aarch64", "2.7", "3.9 or newer"),
    ],
)
def test_tags_that_are_not_understood(tag, python, words):
    with pytest.raises(ConfigurationError, match=words):
        parse_target(tag, python)


def test_32_bit_boards_get_the_old_runtime_and_no_onnxruntime():
    assert runtime_package("tflite", "armv7l").package == "tflite-runtime"
    assert runtime_package("tflite", "aarch64").package == "ai-edge-litert"
    with pytest.raises(BoardError, match="no wheels for 32-bit"):
        runtime_package("onnx", "armv7l")


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def install(package, target, site):
        (site / "numpy" / "tests").mkdir(parents=True)
        (site / "numpy" / "__init__.py").write_text("x = 1\n")
        (site / "numpy" / "tests" / "big.py").write_text("not sent")

    monkeypatch.setattr(module, "_install", install)


def test_a_bundle_is_the_same_bytes_every_time_and_leaves_tests_out(stand_in):
    target = WheelTarget("aarch64", (2, 28), (3, 11))
    first = cached_bundle("tflite", target)
    content = first.path.read_bytes()
    first.path.unlink()
    again = cached_bundle("tflite", target)
    assert again.path.read_bytes() == content
    assert again == first
    raw = gzip.decompress(content)
    assert again.unpacked_bytes == len(raw)
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        assert archive.getnames() == ["numpy/__init__.py", "SHA256SUMS"]


def test_a_bundle_for_an_older_glibc_serves_a_newer_board_only(stand_in):
    made = cached_bundle("tflite", WheelTarget("aarch64", (2, 28), (3, 11)))
    assert find_bundle("tflite", WheelTarget("aarch64", (2, 41), (3, 11))) == made
    assert find_bundle("tflite", WheelTarget("aarch64", (2, 27), (3, 11))) is None
    assert find_bundle("tflite", WheelTarget("aarch64", (2, 41), (3, 12))) is None
    assert find_bundle("tflite", WheelTarget("x86_64", (2, 41), (3, 11))) is None
    assert find_bundle("onnx", WheelTarget("aarch64", (2, 41), (3, 11))) is None


IDENTITIES = st.text("0123456789abcdef", min_size=16, max_size=16)


@given(st.lists(IDENTITIES, unique=True), st.lists(st.text(max_size=20)), st.integers(0, 4), st.data())
def test_only_old_bundles_are_removed_and_never_what_is_current(names, others, keep, data):
    current = set(data.draw(st.lists(st.sampled_from(names), max_size=2))) if names else set()
    listed = data.draw(st.permutations([*names, *(name for name in others if name not in names)]))
    gone = superfluous_bundles(listed, current, keep)
    assert not set(gone) & current
    assert set(gone) <= set(names)
    assert len(set(names) - current - set(gone)) <= keep
