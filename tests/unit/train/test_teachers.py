"""Teachers that are brought as files."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.errors import ConfigurationError
from edgekd.train.regimes.teachers import combine
from edgekd.train.teachers import load_teacher


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 4)).eval()


def onnx_file(path, batch):
    from onnx import TensorProto, helper, numpy_helper, save

    model = build()
    weight = numpy_helper.from_array(model[1].weight.detach().numpy().T.copy(), "w")
    bias = numpy_helper.from_array(model[1].bias.detach().numpy(), "b")
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("Gemm", ["f", "w", "b"], ["y"])]
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 2, 2])
    end = helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 4])
    graph = helper.make_graph(nodes, "g", [entry], [end], [weight, bias])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


@pytest.mark.parametrize("kind", ["t.pt", "t.pt2", "dynamic.onnx", "one.onnx"])
def test_a_teacher_from_a_file_answers_as_the_module_does(tmp_path, kind):
    model, path, inputs = build(), tmp_path / kind, torch.randn(5, 3, 2, 2)
    if kind == "t.pt":
        torch.save(model.state_dict(), path)
    elif kind == "t.pt2":
        dynamic = {"input": {0: torch.export.Dim("batch")}}
        torch.export.save(torch.export.export(model, (inputs,), dynamic_shapes=dynamic), path)
    else:
        onnx_file(path, "batch" if kind.startswith("dynamic") else 1)
    loaded = load_teacher(path, build)
    with torch.no_grad():
        torch.testing.assert_close(loaded(inputs), model(inputs), rtol=1e-4, atol=1e-5)


def test_files_that_are_no_teacher_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="no such file"):
        load_teacher(tmp_path / "none.onnx", build)
    (tmp_path / "t.bin").write_bytes(b"")
    with pytest.raises(ConfigurationError, match=r"must end in \.onnx"):
        load_teacher(tmp_path / "t.bin", build)
    torch.save({"other": torch.zeros(1)}, tmp_path / "t.pt")
    with pytest.raises(ConfigurationError, match="the weights do not fit the task's own teacher"):
        load_teacher(tmp_path / "t.pt", build)


@pytest.mark.parametrize("name", ["damaged.onnx", "damaged.pt2"])
def test_a_damaged_file_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"no model at all")
    with pytest.raises(ConfigurationError, match=name):
        load_teacher(tmp_path / name, build)


def test_a_damaged_program_is_told_once_without_torchs_own_traceback(tmp_path, capfd):
    (tmp_path / "damaged.pt2").write_bytes(b"no model at all")
    program = (
        "import sys; from pathlib import Path; from edgekd.train.teachers import load_teacher\n"
        "try: load_teacher(Path(sys.argv[1]), None)\n"
        "except Exception as error: print(error)"
    )
    # In a process of its own: torch decides when it is imported where it logs to.
    ran = subprocess.run([sys.executable, "-c", program, tmp_path / "damaged.pt2"], capture_output=True, text=True)
    assert "damaged.pt2: not a torch.export program" in ran.stdout
    assert "Traceback" not in ran.stdout + ran.stderr


@pytest.mark.parametrize("name", ["one.onnx", "fixed.pt2"])
def test_inputs_that_a_brought_teacher_does_not_take_are_said(tmp_path, name):
    path = tmp_path / name
    if name.endswith("onnx"):
        onnx_file(path, 1)
    else:
        torch.export.save(torch.export.export(build(), (torch.randn(5, 3, 2, 2),)), path)
    with pytest.raises(ConfigurationError, match=f"{name}: does not take"):
        load_teacher(path, build)(torch.randn(4, 3, 5, 5))


def test_ensembles_combine_as_they_say():
    sure, unsure = torch.tensor([[4.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.5, 0.0]])
    p = [t.softmax(1).numpy() for t in (sure, unsure)]
    label = torch.tensor([1])

    def of(how, labels=label):
        return combine([sure, unsure], labels, how).exp().numpy()

    np.testing.assert_allclose(of("mean"), (p[0] + p[1]) / 2, rtol=1e-5)
    assert of("confidence")[0, 0] > of("mean")[0, 0]
    # The label is class 1, to which the unsure teacher gives more; without a label the surer one speaks.
    np.testing.assert_allclose(of("per_sample"), p[1], rtol=1e-5)
    np.testing.assert_allclose(of("per_sample", torch.tensor([-1])), p[0], rtol=1e-5)
