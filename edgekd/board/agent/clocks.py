"""Pins the clocks for a pass, and puts everything back whatever happens.

The governor is set by a guard: a process in a session of its own that waits for the end of its standard input, which
comes when this process ends in whatever way, and then restores what it found. What it found is in a journal beside
the agent, so that even a guard that was killed is made up for by the next run (unless the board booted since, which
resets governors by itself). On a Jetson the guard also locks the clocks with NVIDIA's own `jetson_clocks`, which knows
GPU and memory as well; `nvpmodel` is left alone: another mode may need a reboot, and outlives one. The
affinity is this process's own and ends with it.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from .state import command_places, is_jetson, read_text
from .wire import AgentError, Wire

GUARD_OPTION = "--clock-guard"
GOVERNOR = "performance"
JOURNAL = "clocks.json"
STORED = "jetson_clocks.stored"
JETSON_CLOCKS = "jetson_clocks"
JETSON_SECONDS = 15.0
ANSWER_S = 20.0
END_WAIT_S = 10.0


def _governor_files(sysfs: Path) -> list[Path]:
    return sorted(sysfs.glob("devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor"))


def _boot_id() -> str:
    return (read_text(Path("/proc/sys/kernel/random/boot_id"), 64) or "").strip()


def _is_guard(pid: int) -> bool:
    """Whether that process is a living guard: one that was killed but not yet reaped has no command line."""
    try:
        return GUARD_OPTION.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _jetson_clocks(sysfs: Path) -> str | None:
    """NVIDIA's own program for it, on a Jetson that has it."""
    return shutil.which(JETSON_CLOCKS, path=command_places()) if is_jetson(sysfs) else None


def _run_jetson_clocks(program: str, *arguments: str) -> None:
    rights = [] if os.geteuid() == 0 else ["sudo", "-n"]
    subprocess.run(
        [*rights, program, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
        timeout=JETSON_SECONDS,
    )


def _write(path: Path, text: str) -> None:
    """Write a governor: directly, or with sudo where that asks no password."""
    try:
        path.write_text(text + "\n")
    except PermissionError:
        subprocess.run(
            ["sudo", "-n", "tee", str(path)],
            input=text.encode() + b"\n",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
            timeout=10,
        )


class PinnedClocks:
    """Governor and affinity pinned; `release` puts the governor back."""

    def __init__(self, sysfs: Path, threads: int, wire: Wire) -> None:
        restore_leftovers(sysfs)
        affinity = _fastest_cpus(sysfs, threads)
        os.sched_setaffinity(0, affinity)
        self._guard: subprocess.Popen[bytes] | None = None
        before: dict[str, str] = {}
        jetson = _jetson_clocks(sysfs) is not None
        if _governor_files(sysfs) or jetson:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", sys.argv[0], GUARD_OPTION, str(sysfs)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
            answer = self._answer()
            if answer.get("problem"):
                self.release()
                raise AgentError("clocks", f"--pin-clocks: {answer['problem']}")
            before = answer["before"]
        wire.send(
            "pinned",
            governor=GOVERNOR if before else "",
            before=before,
            affinity=sorted(affinity),
            jetson_clocks=jetson,
        )

    def _answer(self) -> dict[str, Any]:
        assert self._guard is not None and self._guard.stdout is not None
        ready, _, _ = select.select([self._guard.stdout], [], [], ANSWER_S)
        line = self._guard.stdout.readline() if ready else b""
        if not line:
            return {"problem": "the process that sets the governor did not answer"}
        found: dict[str, Any] = json.loads(line)
        return found

    def release(self) -> None:
        """Put the governor back, and wait until that is done."""
        guard, self._guard = self._guard, None
        if guard is None or guard.stdin is None:
            return
        guard.stdin.close()
        try:
            guard.wait(END_WAIT_S)
        except subprocess.TimeoutExpired:
            # It goes on by itself: it needs nobody.
            return


def _fastest_cpus(sysfs: Path, threads: int) -> set[int]:
    """As many cores as there are threads: the fastest, and of equals the last, where the fewest interrupts go."""

    def rank(cpu: int) -> tuple[int, int]:
        text = read_text(sysfs / f"devices/system/cpu/cpu{cpu}/cpufreq/cpuinfo_max_freq", 64) or ""
        return (int(text) if text.strip().isdigit() else 0, cpu)

    allowed = os.sched_getaffinity(0)
    return set(sorted(allowed, key=rank)[-threads:]) if threads < len(allowed) else allowed


def run_guard(sysfs: Path) -> int:
    """Entry of the guard: set, say so, wait for the end of standard input, restore."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    files = _governor_files(sysfs)
    before = {str(path): (read_text(path, 64) or "").strip() for path in files}
    journal, stored = (Path(sys.argv[0]).parent / name for name in (JOURNAL, STORED))
    jetson = _jetson_clocks(sysfs)
    problem = ""
    try:
        stored.unlink(missing_ok=True)
        journal.write_text(json.dumps({"boot_id": _boot_id(), "guard": os.getpid(), "before": before}))
        if jetson is not None:
            _run_jetson_clocks(jetson, "--store", str(stored))
            _run_jetson_clocks(jetson)
        for path in files:
            _write(path, GOVERNOR)
            if (read_text(path, 64) or "").strip() != GOVERNOR:
                raise OSError(f"{path} does not take '{GOVERNOR}'")
    except (OSError, subprocess.SubprocessError) as error:
        problem = f"the clocks cannot be set: {error}. It takes root, or sudo without a password for `tee`" + (
            f" and {JETSON_CLOCKS}" if jetson else ""
        )
    _tell({"before": before, "problem": problem})
    while os.read(0, 64):
        pass
    _restore(sysfs, before, stored)
    journal.unlink(missing_ok=True)
    return 0


def _tell(answer: dict[str, Any]) -> None:
    try:
        os.write(1, (json.dumps(answer) + "\n").encode())
    except OSError:
        # Whoever asked is gone; what was set is restored all the same.
        return


def _restore(sysfs: Path, before: dict[str, str], stored: Path) -> None:
    jetson = _jetson_clocks(sysfs)
    try:
        if jetson is not None and stored.exists():
            _run_jetson_clocks(jetson, "--restore", str(stored))
            stored.unlink(missing_ok=True)
    except (OSError, subprocess.SubprocessError):
        # The governors are restored all the same; what was stored stays for the next run.
        pass
    for path, governor in before.items():
        try:
            if governor and (read_text(Path(path), 64) or "").strip() != governor:
                _write(Path(path), governor)
        except (OSError, subprocess.SubprocessError):
            # One core that refuses must not keep the others from being restored.
            continue


def restore_leftovers(sysfs: Path) -> None:
    """Put back what a guard that was killed left behind."""
    journal = Path(sys.argv[0]).parent / JOURNAL
    text = read_text(journal)
    if text is None:
        return
    try:
        left = json.loads(text)
        if _is_guard(int(left["guard"])) and left["boot_id"] == _boot_id():
            return
        allowed = {str(path) for path in _governor_files(sysfs)}
        if left["boot_id"] == _boot_id():
            before = {path: str(value) for path, value in left["before"].items() if path in allowed}
            _restore(sysfs, before, journal.with_name(STORED))
    except (ValueError, KeyError, TypeError, AttributeError):
        # A torn journal tells nothing.
        pass
    journal.unlink(missing_ok=True)
