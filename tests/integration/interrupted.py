"""Long work through a session: imported by tests, and run as a process that they interrupt."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from edgekd.board.connection.open import open_session
from edgekd.board.measuring.measure import BoardModel, measure
from edgekd.board.provisioning.deploy import deploy_files
from edgekd.board.provisioning.provision import provision
from edgekd.records import MeasurementPlan

FIXTURES = Path(__file__).parent.parent / "fixtures"


def short_plan(runtime, **changes):
    values = {
        "name": "quick",
        "runtime": runtime,
        "threads": 1,
        "min_runs": 64,
        "min_seconds": 0.4,
        "processes": 2,
        "warmup_seconds": 0.05,
        "max_seconds": 1.0,
    }
    return MeasurementPlan(**{**values, **changes})


def board_model(folder: str, path: Path) -> BoardModel:
    return BoardModel(f"{folder}/{path.name}", hashlib.sha256(path.read_bytes()).hexdigest(), path.name)


def measure_long(board: str, say) -> None:
    path = FIXTURES / "tiny_int8.tflite"
    with open_session(board) as session:
        environment = provision(session, "tflite")
        folder = deploy_files(session, {path.name: path}, "r")
        plan = short_plan("tflite", min_seconds=60.0, max_seconds=60.0)
        measure(session, environment, board_model(folder, path), plan, on_progress=say)


if __name__ == "__main__":
    if sys.argv[1] == "measure":
        measure_long(sys.argv[2], lambda message: None)
    else:
        with open_session(sys.argv[2]) as session:
            deploy_files(session, {"big.bin": Path(sys.argv[3])}, "r")
