"""Google's own converter, where it is installed, and our writer make files that compute the same."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from edgekd.convert.inference import run_model
from edgekd.convert.model_file import read_graph
from edgekd.convert.operators import operators_of

_SCRIPT = """
import sys, torch, litert_torch
model = torch.load(sys.argv[1], weights_only=False).eval()
channels, height, width = model.architecture.input_shape
last = litert_torch.to_channel_last_io(model, args=[0]).eval()
litert_torch.convert(last, (torch.zeros(1, height, width, channels),)).export(sys.argv[2])
"""


@pytest.mark.slow
def test_our_float_file_equals_litert_torchs(converted, tmp_path):
    pytest.importorskip("litert_torch")
    torch.save(converted.student, tmp_path / "student.pt")
    path = tmp_path / "theirs.tflite"
    subprocess.run([sys.executable, "-c", _SCRIPT, str(tmp_path / "student.pt"), str(path)], check=True, timeout=280)
    inputs = converted.inputs[:50].numpy()
    ours = converted.paths["tflite", "fp32"]
    np.testing.assert_allclose(run_model(ours, inputs), run_model(path, inputs), atol=1e-4, rtol=1e-4)
    mine, theirs = operators_of(read_graph(ours)), operators_of(read_graph(path))
    assert mine.macs == theirs.macs and mine.parameters == theirs.parameters
    # Theirs may keep transposes; it never needs fewer operators.
    assert len(mine.operators) <= len(theirs.operators)
