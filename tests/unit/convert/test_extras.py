"""What only `edgekd[fit]` installs is imported without a trace in the user's home."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from edgekd.convert.extras import fit_module
from edgekd.errors import MissingExtraError


def test_onnxruntime_leaves_nothing_in_the_home(tmp_path):
    pytest.importorskip("onnxruntime")
    code = (
        "import os; from edgekd.convert.extras import fit_module; module = fit_module('onnxruntime'); "
        "assert module is fit_module('onnxruntime'); assert os.environ.get('XDG_CACHE_HOME') == '/kept'"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": "/kept"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    environment.pop("XDG_CACHE_HOME")
    subprocess.run([sys.executable, "-c", code.partition("; assert os")[0]], env=environment, check=True)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_one_says_how_to_install_it():
    with pytest.raises(MissingExtraError, match="edgekd\\[fit\\]"):
        fit_module("no_such_module_at_all")
