"""Writing and trying out a file in a process of its own, so that a crash or a hang there is an error here.

The formats' libraries and runtimes are native code. What they print goes to a log that an error quotes.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from edgekd.convert.model_file import format_of
from edgekd.errors import BuildError, MissingExtraError
from edgekd.nn.quantized.network import Network
from edgekd.records import Format

_QUOTED_LINES = 12
_MISSING_EXTRA = 3
_REFUSED = 5


def write_isolated(
    network: Network, file_format: Format, path: Path, timeout_s: float, opset: int | None = None
) -> None:
    """Write `network` to `path` and run it once, in a child process; the file appears whole or not at all.

    `opset` is for ONNX, see `write_network`.

    Raises:
        BuildError: the child failed, crashed or took longer than `timeout_s`; the message ends with its log.
        MissingExtraError: the format's library is not installed.
    """
    if format_of(path) != file_format:
        raise BuildError(f"{path}: the suffix does not say {file_format}")
    with tempfile.TemporaryDirectory(prefix="edgekd-convert-") as scratch:
        source, log, draft = Path(scratch, "network.pickle"), Path(scratch, "log"), Path(scratch, path.name)
        source.write_bytes(pickle.dumps(network))
        command = [sys.executable, "-m", "edgekd.convert.isolated", str(source), str(draft), str(opset or "")]
        run_logged(command, log, timeout_s, str(path))
        _publish(draft, path)


def run_logged(command: list[str], log: Path, timeout_s: float, target: str) -> None:
    """Run a converter's process to its end, its output in `log`; it never outlives this call.

    Raises:
        BuildError: it refused `target`, failed, was killed by a signal, or took longer than `timeout_s`.
        MissingExtraError: it found a library missing.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    with log.open("wb") as output:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        try:
            code = child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise BuildError(f"{target}: the converter took longer than {timeout_s:g} s{_quoted(log)}") from None
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
    if code == _MISSING_EXTRA:
        raise MissingExtraError(log.read_text("utf-8", "replace").split("module=")[-1].strip(), "fit")
    if code == _REFUSED:
        raise BuildError(f"{target}: {_last_line(log)}")
    if code < 0:
        raise BuildError(f"{target}: the converter was killed by {signal.Signals(-code).name}{_quoted(log)}")
    if code:
        raise BuildError(f"{target}: the converter failed with exit code {code}{_quoted(log)}")


def _last_line(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "the converter refused it without a word"


def _quoted(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").strip().splitlines()[-_QUOTED_LINES:]
    return "; the end of its log:\n  " + "\n  ".join(lines) if lines else "; its log is empty"


def _publish(draft: Path, path: Path) -> None:
    """Put the finished file in place: a temporary name beside the target, then a rename."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(draft.read_bytes())
        partial.replace(path)
    except OSError as error:
        raise BuildError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


def write_network(network: Network, path: Path, opset: int | None = None) -> None:
    """Write a network in this process, in the format of the path's suffix, without trying it out.

    `opset` is ONNX's; None is the oldest that carries the network's scheme, 17 at least.
    """
    if format_of(path) == "tflite":
        from edgekd.convert.tflite_writer import tflite_bytes

        path.write_bytes(tflite_bytes(network))
        return
    from edgekd.convert.onnx_writer import onnx_bytes

    path.write_bytes(onnx_bytes(network, opset))


def _child(source: str, target: str, opset: str = "") -> int:
    import numpy as np

    from edgekd.convert.inference import run_model

    network: Network = pickle.loads(Path(source).read_bytes())  # noqa: S301 - our own parent process wrote it
    try:
        write_network(network, Path(target), int(opset) if opset else None)
        outputs = run_model(Path(target), np.zeros(network.tensors[network.input].shape, np.float32))
        if not np.isfinite(outputs).all():
            raise BuildError("the file's outputs for an input of zeros are not finite")
    except MissingExtraError as error:
        sys.stderr.write(f"\nmodule={error.module}\n")
        return _MISSING_EXTRA
    except BuildError as error:
        sys.stderr.write(f"\n{error}\n")
        return _REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(_child(*sys.argv[1:]))
