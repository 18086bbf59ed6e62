"""An aarch64 Debian with a real SSH server on this machine, for rehearsing without hardware.

Everything comes from packages of a Debian-like distribution: qemu-user-static runs its programs, mmdebstrap unpacks
its system. It lives in network, process and mount namespaces of its own: its only network is a cable to this machine.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import platformdirs

from edgekd.board.connection.pump import LinkLostError
from edgekd.core.board_output import parse_integer
from edgekd.core.emulated_machines import MACHINES, EmulatedMachine
from edgekd.errors import BoardError, ConfigurationError

logger = logging.getLogger(__name__)

SUITE = "bookworm"
PACKAGES = (
    "dash,bash,coreutils,tar,gzip,findutils,grep,sed,util-linux,procps,hostname,libc-bin,base-files,"
    "openssh-server,python3,libstdc++6"
)
INSTALL_HINT = "sudo apt install qemu-user-static binfmt-support mmdebstrap iproute2 openssh-client"
BUILD_TIMEOUT_S = 1800
START_TIMEOUT_S = 60.0
BINFMT = Path("/proc/sys/fs/binfmt_misc")
# The third byte of the address is the machine's place in the list: several kinds can run beside each other.
NETWORK = "10.214"

_PASSWD = "root:*:0:0:root:/root:/bin/bash\nsshd:x:101:65534::/run/sshd:/usr/sbin/nologin\n"
_GROUP = "root:x:0:\nnogroup:x:65534:\n"
_SSHD_CONFIG = """ListenAddress {address}
HostKey /etc/ssh/host_key
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
SetEnv QEMU_CPU={cpu}
"""
# $1: root directory, $2: its /sys, $3: its cpuinfo. Runs in namespaces of its own: the mounts end with it.
_INSIDE = """set -e
mount --make-rprivate /
mount -t proc proc "$1/proc"
mount --bind "$3" "$1/proc/cpuinfo"
mount -t tmpfs tmpfs "$1/dev"
for device in null zero full random urandom; do : >"$1/dev/$device"; mount --bind "/dev/$device" "$1/dev/$device"; done
mount --bind "$2" "$1/sys"
mount -o remount,bind,ro "$1/sys"
exec chroot "$1" /usr/sbin/sshd -D -e -f /etc/ssh/edgekd_config
"""


class EmulatedBoard:
    """Runs while its `with` block does. `board` and `identity` are what --board and --identity take."""

    def __init__(self, machine: EmulatedMachine, *, fresh: bool, say: Callable[[str], None]) -> None:
        place = list(MACHINES).index(machine.profile) + 1
        self._machine = machine
        self._say = say
        self._namespace = f"edgekd-{machine.profile}"
        self._link = f"edgekd{place}"
        self._here, self._there = f"{NETWORK}.{place}.1", f"{NETWORK}.{place}.2"
        self._folder = Path(platformdirs.user_cache_dir("edgekd")) / "emulated" / machine.profile
        self._process: subprocess.Popen[bytes] | None = None
        self._fresh = fresh
        self.board = f"root@{self._there}"
        self.identity = self._folder / "id_ed25519"

    def __enter__(self) -> Self:
        require_tools()
        if threading.current_thread() is threading.main_thread():
            # Being terminated must take the board along, as being interrupted does.
            signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            self._build()
            self._connect()
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def wait(self) -> None:
        """Until it ends."""
        if self._process is not None:
            self._process.wait()

    def _build(self) -> None:
        root = self._folder / "root"
        if self._fresh and root.exists():
            shutil.rmtree(root)
        self._folder.mkdir(parents=True, exist_ok=True)
        if not root.exists():
            self._say(f"unpacking Debian {SUITE} for arm64 (once)")
            partial = self._folder / ".root-partial"
            shutil.rmtree(partial, ignore_errors=True)
            command = ["mmdebstrap", "--quiet", "--variant=extract", "--architectures=arm64", f"--include={PACKAGES}"]
            _run([*command, SUITE, str(partial)], BUILD_TIMEOUT_S)
            partial.chmod(0o755)
            partial.rename(root)
        for name in ("id_ed25519", "host_key"):
            if not (self._folder / name).exists():
                _run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self._folder / name)])
        self._configure(root)

    def _configure(self, root: Path) -> None:
        """Rewrite, at each start, what makes the plain system this board."""
        texts = {
            root / "etc/passwd": _PASSWD,
            root / "etc/group": _GROUP,
            root / "etc/hostname": f"{self._namespace}\n",
            root / "etc/ssh/edgekd_config": _SSHD_CONFIG.format(address=self._there, cpu=self._machine.cpu),
            root / "root/.ssh/authorized_keys": (self._folder / "id_ed25519.pub").read_text(),
            self._folder / "cpuinfo": self._machine.cpuinfo(),
            **{self._folder / "sys" / name: text for name, text in self._machine.sysfs().items()},
        }
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        for name in ("dev", "proc", "sys", "run/sshd", "tmp"):
            (root / name).mkdir(parents=True, exist_ok=True)
        shutil.copy(self._folder / "host_key", root / "etc/ssh/host_key")
        (root / "etc/ssh/host_key").chmod(0o600)

    def _end_left_over(self) -> None:
        """End a board of this kind that an edgekd left running when it was killed."""
        remembered = self._folder / "pid"
        pid = parse_integer(remembered.read_text()) if remembered.exists() else None
        if pid is None:
            return
        with contextlib.suppress(OSError):
            if str(self._folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.killpg(pid, signal.SIGKILL)

    def _connect(self) -> None:
        self._end_left_over()
        self._disconnect()
        inside = ["ip", "netns", "exec", self._namespace, "ip"]
        for command in (
            ["ip", "netns", "add", self._namespace],
            ["ip", "link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", self._namespace],
            ["ip", "addr", "add", f"{self._here}/30", "dev", self._link],
            ["ip", "link", "set", self._link, "up"],
            [*inside, "addr", "add", f"{self._there}/30", "dev", "eth0"],
            [*inside, "link", "set", "eth0", "up"],
            [*inside, "link", "set", "lo", "up"],
        ):
            _run(command)

    def _disconnect(self) -> None:
        for command in (["ip", "link", "del", self._link], ["ip", "netns", "del", self._namespace]):
            subprocess.run(command, capture_output=True, check=False)

    def _start(self) -> None:
        from edgekd.board.connection.ssh_connect import open_socket

        command = ["ip", "netns", "exec", self._namespace, "unshare", "--mount", "--pid", "--fork", "--kill-child"]
        command += ["sh", "-c", _INSIDE, "edgekd", *(str(self._folder / name) for name in ("root", "sys", "cpuinfo"))]
        log = self._folder / "sshd.log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**os.environ, "QEMU_CPU": self._machine.cpu},
            )
        (self._folder / "pid").write_text(str(self._process.pid))
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                open_socket(self.board, self._there, 22, 2.0).close()
                return
            except LinkLostError:
                time.sleep(0.2)
        raise BoardError(f"the emulated board did not start: {log.read_text(errors='replace')[-400:]}")

    def _stop(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
        self._disconnect()


def machine_of(profile: str) -> EmulatedMachine:
    """The machine that plays a profile's board.

    Raises:
        ConfigurationError: there is none.
    """
    if profile not in MACHINES:
        raise ConfigurationError(
            f"no emulated board for profile '{profile}': there are {', '.join(MACHINES)}. QEMU of the distributions "
            "has neither the CPU of the Jetsons nor their GPU"
        )
    return MACHINES[profile]


def require_tools() -> None:
    """Fail early where this machine cannot emulate.

    Raises:
        ConfigurationError: names what is missing.
    """
    missing = [name for name in ("mmdebstrap", "ip", "unshare", "chroot", "ssh-keygen") if shutil.which(name) is None]
    if not any(shutil.which(name) for name in ("qemu-aarch64-static", "qemu-aarch64")):
        missing.append("qemu-aarch64-static")
    if missing:
        raise ConfigurationError(f"emulating needs {', '.join(missing)}: {INSTALL_HINT}")
    if os.geteuid() != 0:
        raise ConfigurationError("emulating needs root (chroot, mounts, a network of its own): run it with sudo")
    if not (BINFMT / "qemu-aarch64").exists():
        for command in (
            ["mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT)],
            ["update-binfmts", "--enable", "qemu-aarch64"],
        ):
            subprocess.run(command, capture_output=True, check=False)
    entry = BINFMT / "qemu-aarch64"
    flags = [line for line in entry.read_text().splitlines() if line.startswith("flags:")] if entry.exists() else []
    if not flags or "F" not in flags[0]:
        raise ConfigurationError(
            f"the kernel does not run aarch64 programs here ({entry} is missing or has no flag F): {INSTALL_HINT}; in "
            "a container, binfmt_misc has to be mounted outside"
        )


def _run(command: Sequence[str], timeout_s: float = 60.0) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BoardError(f"emulating: `{' '.join(command[:4])} …` failed: {error}") from error
    if done.returncode:
        raise BoardError(f"emulating: `{' '.join(command[:4])} …` failed: {done.stderr.strip()[-400:]}")
