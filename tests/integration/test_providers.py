"""--provider: what was asked for runs the whole graph, or it is an error that names what ran."""

from __future__ import annotations

import pytest
from interrupted import FIXTURES, board_model, short_plan

from edgekd.board.connection.open import open_session
from edgekd.board.measuring.measure import measure
from edgekd.board.provisioning.deploy import deploy_files
from edgekd.board.provisioning.provision import provision
from edgekd.errors import BoardError, ConfigurationError

onnxruntime = pytest.importorskip("onnxruntime")
MODEL = FIXTURES / "tiny_int8.onnx"


@pytest.fixture(autouse=True)
def local(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKD_BOARD_HOME", str(tmp_path / "home"))


def measured(plan, model=MODEL):
    with open_session("local") as session:
        environment = provision(session, plan.runtime)
        folder = deploy_files(session, {model.name: model}, "r")
        return measure(session, environment, board_model(folder, model), plan)


def test_the_provider_that_runs_the_graph_is_recorded():
    result = measured(short_plan("onnx", provider="CPUExecutionProvider"))
    assert result.provider == result.plan.provider == "CPUExecutionProvider"


def test_one_that_is_not_there_is_an_error_that_names_what_is():
    with pytest.raises(BoardError, match="NoSuchExecutionProvider was asked for.*CPUExecutionProvider"):
        measured(short_plan("onnx", provider="NoSuchExecutionProvider"))


@pytest.mark.skipif(
    "AzureExecutionProvider" not in onnxruntime.get_available_providers(), reason="onnxruntime without Azure's provider"
)
def test_one_that_is_there_but_runs_nothing_is_an_error_that_names_what_ran():
    with pytest.raises(BoardError, match="did not run the whole graph: CPUExecutionProvider ran"):
        measured(short_plan("onnx", provider="AzureExecutionProvider"))


def test_litert_has_no_providers():
    with pytest.raises(ConfigurationError, match="--runtime onnx"):
        measured(short_plan("tflite", provider="CUDAExecutionProvider"), FIXTURES / "tiny_int8.tflite")
