import sys
from dataclasses import replace

import pytest

from edgekd.convert.inference import run_model
from edgekd.convert.isolated import run_logged, write_isolated
from edgekd.convert.model_file import read_graph
from edgekd.errors import BuildError, MissingExtraError


def python(source):
    return [sys.executable, "-c", source]


def test_a_crash_names_the_signal_and_quotes_the_log(tmp_path):
    command = python("import os, signal; print('before', flush=True); os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(BuildError, match=r"student.tflite: the converter was killed by SIGSEGV.*\n  before"):
        run_logged(command, tmp_path / "log", 30, "student.tflite")


def test_a_hang_ends_at_the_timeout(tmp_path):
    with pytest.raises(BuildError, match=r"took longer than 0\.5 s"):
        run_logged(python("import time; time.sleep(600)"), tmp_path / "log", 0.5, "student.onnx")


def test_a_failure_quotes_the_end_of_the_log(tmp_path):
    with pytest.raises(BuildError, match=r"exit code 1; the end of its log:\n(.*\n)*.*ZeroDivisionError"):
        run_logged(python("1 / 0"), tmp_path / "log", 30, "student.onnx")


def test_a_missing_library_says_what_to_install(tmp_path):
    with pytest.raises(MissingExtraError, match=r"'onnx'.*edgekd\[fit\]"):
        run_logged(python("import sys; sys.stderr.write('module=onnx'); sys.exit(3)"), tmp_path / "log", 30, "x.onnx")


def test_a_refused_network_leaves_no_file(signals, tmp_path):
    layers = (replace(signals.network.layers[0], kind="fourier"), *signals.network.layers[1:])
    broken = replace(signals.network, layers=layers)
    for name, file_format in (("student.tflite", "tflite"), ("student.onnx", "onnx")):
        with pytest.raises(BuildError, match="'fourier' has no (TFLite|ONNX) form"):
            write_isolated(broken, file_format, tmp_path / name, 60)
    assert not list(tmp_path.iterdir())


def test_a_directory_that_is_missing_is_an_error(signals, tmp_path):
    with pytest.raises(BuildError, match="cannot be written"):
        write_isolated(signals.network, "tflite", tmp_path / "missing" / "student.tflite", 60)


@pytest.mark.parametrize("key", [("tflite", "wi8_ai8"), ("onnx", "wi8_ai8")])
@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_truncated_files_are_refused(signals, tmp_path, key, kept):
    content = signals.paths[key].read_bytes()
    path = tmp_path / signals.paths[key].name
    path.write_bytes(content[: kept if kept > 1 else int(kept * len(content))])
    with pytest.raises(BuildError, match=path.name):
        read_graph(path)
    with pytest.raises(BuildError, match=path.name):
        run_model(path, signals.inputs[:1].numpy())
