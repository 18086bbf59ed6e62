import gzip
import hashlib
import http.server
import threading

import numpy as np
import pytest

from edgekd.errors import ConfigurationError
from edgekd.tasks import Split, Task, Teacher, load_task, student_inputs
from edgekd.tasks.check import check_task
from edgekd.tasks.fashion_mnist import CONTENT_SHA256, DEBIAN_DIRECTORY

TASK_FILE = """
import numpy as np
from torch import nn
from edgekd.records import Training
from edgekd.tasks import Split, Task, Teacher

def load(count: int = 20) -> Task:
    random = np.random.default_rng(0)
    def split(n):
        return Split(random.normal(size=(n, 1, 4, 4)).astype(np.float32), np.arange(n) % 2)
    train, validation, test = split(count), split(8), split(8)
    {edit}
    return Task(name="mine", kind="image", classes=("a", "b"), train=train, validation=validation, test=test,
                teacher=Teacher(lambda: nn.Flatten(), Training(epochs=1, learning_rate=0.1)), preprocessing="none")
"""


def write(tmp_path, edit="pass"):
    path = tmp_path / "my_task.py"
    path.write_text(TASK_FILE.format(edit=edit))
    return str(path)


def test_a_users_file_loads_with_its_options(tmp_path):
    task = load_task(write(tmp_path), {"count": 30})
    assert (task.name, len(task.train), task.input_shape) == ("mine", 30, (1, 4, 4))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ("test.inputs[0, 0, 0, 0] = np.nan", r"test\.inputs: 1 values are NaN or infinite, first in input 0"),
        ("validation.labels[3] = 7", r"validation\.labels: 7 is out of range 0\.\.1"),
        ("validation.labels[3] = -1", r"validation\.labels: -1 is out of range"),
        ("test.inputs[2] = train.inputs[5]", r"train and test overlap: 1 of test's inputs .*test\[2\]"),
        ("test = Split(test.inputs[:0], test.labels[:0])", "test: is empty"),
        ("test = None", r"test: must be an edgekd\.tasks\.Split, is NoneType"),
        ("test = Split(test.inputs, test.labels[:3])", r"test\.labels: must be \(8,\), is \(3,\)"),
        ("test = Split(test.inputs.astype(np.float64), test.labels)", "must be float32, is float64"),
        ("test = Split(test.inputs[:, :, :2], test.labels)", r"shape \(1, 2, 4\) differs from train's"),
        ("train = Split(train.inputs[:, 0], train.labels)", r"train\.inputs: must be \(N, channels, height, width\)"),
        ("1 / 0", r"my_task\.py:12 in load: 1 / 0\n  ZeroDivisionError"),
        ("return 3", r"must return an edgekd\.tasks\.Task, not int"),
    ],
)
def test_data_that_cannot_be_used_is_refused_with_its_place(tmp_path, edit, message):
    with pytest.raises(ConfigurationError, match=message):
        load_task(write(tmp_path, edit), {})


def test_every_problem_of_the_data_is_told_at_once(tmp_path):
    with pytest.raises(ConfigurationError) as error:
        load_task(write(tmp_path, "test.inputs[0] = np.inf; validation.labels[0] = 9"), {})
    assert "test.inputs" in str(error.value)
    assert "validation.labels" in str(error.value)


def test_a_group_in_two_splits_is_refused():
    random = np.random.default_rng(0)

    def split(groups):
        return Split(random.normal(size=(4, 1, 2, 2)).astype(np.float32), np.zeros(4, np.int64), np.array(groups))

    teacher = Teacher(lambda: None, None)
    parts = {"train": split([1, 1, 2, 2]), "validation": split([3, 3, 3, 3]), "test": split([4, 2, 4, 4])}
    task = Task(name="t", kind="image", classes=("a", "b"), teacher=teacher, preprocessing="", **parts)
    with pytest.raises(ConfigurationError, match="train and test share the groups 2"):
        check_task(task)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("watch-gesture", {}, "did you mean watch-gestures"),
        ("nothing.py", {}, "does not exist"),
        ("watch-gestures", {"windw": 3}, "unknown option windw; it takes window"),
        ("watch-gestures", {"window": 3}, "must be at least 16"),
        ("fashion-mnist", {"directory": "/nonexistent"}, "does not exist"),
        ("fashion-mnist", {"train_images": 99999}, "10 to 55000"),
    ],
)
def test_a_wrong_name_or_option_says_what_is_right(name, options, message):
    with pytest.raises(ConfigurationError, match=message):
        load_task(name, options)


def test_a_file_that_raises_or_has_no_load_is_the_files_fault(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("x = 1\nraise ValueError('no data today')\n")
    with pytest.raises(ConfigurationError, match=r"broken\.py:2 .*\n.*ValueError: no data today"):
        load_task(str(path), {})
    path.write_text("x = 1\n")
    with pytest.raises(ConfigurationError, match=r"must define a function load\(\)"):
        load_task(str(path), {})


def test_watch_gestures_never_shares_a_person_between_splits():
    task = load_task("watch-gestures", {})
    groups = [set(split.groups) for split in (task.train, task.validation, task.test)]
    assert all(groups)
    assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])
    assert len(task.test) >= 500
    assert sum(mask.sum() for mask in task.slices.values()) == len(task.test)
    assert abs(float(task.train.inputs.mean())) < 1e-3


def test_decisions_are_given_no_test_split():
    development = load_task("watch-gestures", {}).development()
    assert not hasattr(development, "test")


@pytest.mark.skipif(not DEBIAN_DIRECTORY.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
class TestFashionMnist:
    def test_debians_files_are_the_known_ones(self):
        for name, expected in CONTENT_SHA256.items():
            content = gzip.decompress((DEBIAN_DIRECTORY / f"{name}.gz").read_bytes())
            assert hashlib.sha256(content).hexdigest() == expected

    def test_splits(self):
        task = load_task("fashion-mnist", {"train_images": 1000})
        assert [len(split) for split in (task.train, task.validation, task.test)] == [1000, 5000, 10000]

    def test_a_damaged_file_is_refused(self, tmp_path):
        for path in DEBIAN_DIRECTORY.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        victim = tmp_path / "t10k-labels-idx1-ubyte.gz"
        victim.write_bytes(gzip.compress(gzip.decompress(victim.read_bytes())[:-5]))
        with pytest.raises(ConfigurationError, match="not a whole IDX file"):
            load_task("fashion-mnist", {"directory": str(tmp_path)})
        victim.unlink()
        with pytest.raises(ConfigurationError, match=r"t10k-labels-idx1-ubyte\[\.gz\] does not exist"):
            load_task("fashion-mnist", {"directory": str(tmp_path)})


def test_a_download_is_checked_by_its_hash(tmp_path, monkeypatch):
    monkeypatch.setattr("edgekd.tasks.fashion_mnist.DEBIAN_DIRECTORY", tmp_path / "none")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    served = tmp_path / "served"
    served.mkdir()
    (served / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"something else"))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(served))

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(ConfigurationError, match="expected c59f468a"):
            load_task("fashion-mnist", {"download_from": address})
        (served / "train-images-idx3-ubyte.gz").unlink()
        with pytest.raises(ConfigurationError, match=r"cannot download .*404"):
            load_task("fashion-mnist", {"download_from": address})
        server.shutdown()
    assert not list((tmp_path / "cache").rglob("*.gz"))


def test_a_student_sees_the_end_of_a_signal_and_a_smaller_image():
    signal = np.arange(12, dtype=np.float32).reshape(1, 2, 1, 6)
    assert student_inputs(signal, (2, 1, 4)).tolist() == [[[[2, 3, 4, 5]], [[8, 9, 10, 11]]]]
    image = np.random.default_rng(0).normal(size=(3, 1, 28, 28)).astype(np.float32)
    assert student_inputs(image, (1, 28, 28)) is image
    small = student_inputs(image, (1, 14, 14))
    assert small.shape == (3, 1, 14, 14)
    assert small.dtype == np.float32
    assert np.allclose(student_inputs(np.ones_like(image), (1, 14, 14)), 1, atol=1e-5)
