"""int8 outputs of an emulated aarch64 board against this machine's, bit by bit; the board reaches no network.

Needs root, qemu-user-static, binfmt-support and mmdebstrap (Debian). Takes some five minutes on two cores:

    sudo .venv/bin/python benchmarks/board/emulated.py

Same agent and same inputs on both sides; onnxruntime here is asked for exact sums, as x86 without VNNI saturates.
"""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from edgekd.board.connection.open import open_session
from edgekd.board.connection.session import Session
from edgekd.board.connection.transfer import sha256_file
from edgekd.board.emulation import EmulatedBoard, machine_of
from edgekd.board.examination.doctor import check_board
from edgekd.board.lock import BoardLock
from edgekd.board.measuring.agent_client import Agent, read_facts
from edgekd.board.measuring.agent_lines import AgentLine, LoadedLine, OutputsLine
from edgekd.board.measuring.extra_passes import RawOutputs, compare_outputs, host_outputs
from edgekd.board.provisioning.deploy import deploy_files
from edgekd.board.provisioning.provision import provision
from edgekd.convert.random_student import write_random_student
from edgekd.core.spaces import space_named
from edgekd.load import load_profile
from edgekd.nn.students import Student, example_input

RESULTS = Path(__file__).parent / "results" / "emulated.json"
INPUTS = 100
SIGNAL = {"window": 128, "stem_stride": 2, "kernel": 5, "width": 24, "depth": 3}
IMAGE = {"resolution": 32, "stem_stride": 2, "kernel": 3, "width": 12, "depth": 2, "expansion": 4}
STUDENTS = {
    "ds-cnn of watch-gestures' shape": ("ds-cnn", SIGNAL, (6, 1, 128)),
    "inverted-residual at 32 px": ("inverted-residual", IMAGE, (3, 32, 32)),
    "inverted-residual at 96 px": ("inverted-residual", {**IMAGE, "resolution": 96, "width": 16}, (3, 96, 96)),
}


def compared(board: Session, path: Path, inputs: Path) -> dict[str, object]:
    """Deploy a file, predict every input there and here, and compare the raw outputs."""
    runtime = path.suffix[1:]
    began = time.monotonic()
    environment = provision(board, runtime)
    provisioned_s = time.monotonic() - began
    folder = deploy_files(board, {path.name: path, inputs.name: inputs}, "benchmark")
    lines: list[OutputsLine] = []
    loaded: list[LoadedLine] = []

    def take(line: AgentLine) -> None:
        if isinstance(line, OutputsLine):
            lines.append(line)
        elif isinstance(line, LoadedLine):
            loaded.append(line)

    sha256 = sha256_file(path)
    job = {"runtime": runtime, "model": f"{folder}/{path.name}", "model_sha256": sha256, "threads": 1}
    agent = Agent(board, environment.python, environment.site)
    agent.do("accuracy", take, timeout_s=600.0, **job, inputs=f"{folder}/{inputs.name}")
    there, here = RawOutputs.of(lines), host_outputs(path, sha256, inputs, runtime, 1)
    assert there is not None and here is not None
    parity = compare_outputs(there, here)
    assert parity is not None
    return {
        "provider": loaded[-1].provider,
        "runtime": f"{environment.runtime_package} {environment.runtime_version}",
        "bundle": environment.site,
        "provisioned_s": round(provisioned_s, 1),
        **parity.model_dump(mode="json"),
    }


def models(folder: Path) -> list[tuple[str, str, Path, Path]]:
    found = []
    for index, (name, (space, choices, native)) in enumerate(STUDENTS.items()):
        torch.manual_seed(index)
        architecture = space_named(space).architecture(choices, native, 10)
        inputs = folder / f"inputs{index}.npz"
        values = np.random.default_rng(index).standard_normal((INPUTS, *architecture.input_shape), np.float32)
        np.savez(inputs, inputs=values)
        for scheme in ("wi8_ai8", "fp32"):
            for suffix in ("tflite", "onnx"):
                path = folder / f"model{index}_{scheme}.{suffix}"
                write_random_student(Student(architecture).eval(), example_input(architecture), path, scheme)
                found.append((name, scheme, path, inputs))
    return found


def main() -> None:
    rows = []
    with TemporaryDirectory() as temporary:
        files = models(Path(temporary))
        for profile in ("rpi4", "rpi5"):
            machine = machine_of(profile)
            with (
                EmulatedBoard(machine, fresh=False, say=print) as emulated,
                open_session(emulated.board, identity=emulated.identity, accept_new_host_key=True) as board,
                BoardLock(board, "benchmark"),
            ):
                routes = board.run(["cat", "/proc/net/route"]).stdout.splitlines()[1:]
                default = [line for line in routes if line.split()[1] == "00000000"]
                assert not default, "the board has a way out"
                checked = check_board(board, load_profile(profile), "tflite")
                facts = read_facts(board, "/usr/bin/python3")
                for name, scheme, path, inputs in files:
                    row = {"cpu": machine.cpu, "student": name, "scheme": scheme, "format": path.suffix[1:]}
                    rows.append({**row, **compared(board, path, inputs)})
                    print(json.dumps(rows[-1]), flush=True)
                rows[-1]["board_facts"] = {
                    "default_routes": len(default),
                    "emulated": checked.emulated,
                    "matches_profile": checked.matches_profile,
                    "machine": facts["machine"],
                    "os": facts["os"],
                    "libc": facts["libc"],
                    "python": facts["python"],
                }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(
        json.dumps({"host_cpu": platform.processor() or platform.machine(), "rows": rows}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
