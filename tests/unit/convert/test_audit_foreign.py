"""Files that other tools shipped are honest, and a streaming model's variables are no lie."""

import subprocess
import sys
import zipfile

import pytest

from edgekd.convert.acceleration import acceleration
from edgekd.convert.audit import audit_file
from edgekd.convert.model_file import read_graph

WAKEWORD = "pymicro-wakeword==2.5.0"


@pytest.fixture(scope="session")
def wakewords(request):
    """The streaming int8 models of pymicro-wakeword, from its wheel, kept in pytest's cache."""
    folder = request.config.cache.mkdir("pymicro-wakeword")
    if not list(folder.glob("*.tflite")):
        asked = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--retries", "0", "--timeout", "10"]
        done = subprocess.run([*asked, "--dest", str(folder), WAKEWORD], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no package index gives {WAKEWORD}: {done.stderr.strip().splitlines()[-1]}")
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.endswith(".tflite"):
                    (folder / name.rsplit("/", 1)[-1]).write_bytes(archive.read(name))
    return sorted(folder.glob("*.tflite"))


def test_pymicro_wakewords_models_are_honest(wakewords):
    assert len(wakewords) == 4
    for path in wakewords:
        audit = audit_file(path, "wi8_ai8")
        assert audit.honest and not audit.findings and audit.found_scheme == "wi8_ai8"
        assert {"VAR_HANDLE:index", "READ_VARIABLE:int8", "ASSIGN_VARIABLE:int8"} <= set(audit.operators)


def test_xnnpack_takes_their_variables_but_not_their_splits(wakewords):
    for path in wakewords:
        graph = read_graph(path)
        named = {finding.node for finding in acceleration(graph, path, "tflite").findings}
        left = {node.op for node in graph.nodes if node.name in named}
        assert left == ({"SPLIT_V", "QUANTIZE"} if path.stem == "okay_nabu" else {"QUANTIZE"})
