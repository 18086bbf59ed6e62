"""A real OpenSSH server on loopback, with throw-away keys and a home of its own; and looking at processes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

START_TIMEOUT_S = 10.0


def find_sshd() -> str | None:
    return shutil.which("sshd") or next((str(p) for p in (Path("/usr/sbin/sshd"),) if p.exists()), None)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def make_key(path: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


@dataclass
class SshServer:
    """A running sshd. `home` is what logins get as $HOME; `client_home` is ours."""

    binary: str
    root: Path
    port: int
    home: Path
    client_home: Path
    user: str
    environment: dict[str, str] = field(default_factory=dict)
    options: list[str] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None
    address: str = "127.0.0.1"
    prefix: tuple[str, ...] = ()

    @property
    def board(self) -> str:
        return f"{self.user}@{self.address}:{self.port}"

    @property
    def known_hosts(self) -> Path:
        return self.client_home / ".ssh" / "known_hosts"

    @property
    def identity(self) -> Path:
        return self.client_home / ".ssh" / "id_ed25519"

    def trust(self) -> None:
        public = (self.root / "host_key.pub").read_text().split()
        self.known_hosts.write_text(f"[{self.address}]:{self.port} {public[0]} {public[1]}\n")

    def new_host_key(self) -> None:
        for name in ("host_key", "host_key.pub"):
            (self.root / name).unlink(missing_ok=True)
        make_key(self.root / "host_key")

    def start(self) -> None:
        variables = {"HOME": str(self.home), "EDGEKD_LOCK_DIR": str(self.home), **self.environment}
        lines = [
            f"Port {self.port}",
            f"ListenAddress {self.address}",
            f"HostKey {self.root}/host_key",
            f"PidFile {self.root}/sshd.pid",
            f"AuthorizedKeysFile {self.root}/authorized_keys",
            "UsePAM no",
            "StrictModes no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin prohibit-password",
            "SetEnv " + " ".join(f'{name}="{value}"' for name, value in variables.items()),
            *self.options,
        ]
        config = self.root / "sshd_config"
        config.write_text("\n".join(lines) + "\n")
        log = (self.root / "sshd.log").open("ab")
        self.process = subprocess.Popen(
            [*self.prefix, self.binary, "-D", "-e", "-f", str(config)], stdout=log, stderr=log
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex((self.address, self.port)) == 0:
                    return
            time.sleep(0.02)
        raise RuntimeError(f"sshd did not start: {(self.root / 'sshd.log').read_text()}")

    def stop(self) -> None:
        if self.process is not None:
            for pid in (*descendants(self.process.pid), self.process.pid):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self.process.wait()
            self.process = None

    @property
    def lock(self) -> Path:
        """The lock of its login."""
        return self.home / f"edgekd-board.{os.getuid()}.lock"

    def connections(self) -> list[int]:
        """The sshd processes that serve one connection each."""
        assert self.process is not None
        return children(self.process.pid)


def children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(entry.parent.name))
    return found


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    for child in children(pid):
        found += [child, *descendants(child)]
    return found


def processes_naming(text: str) -> list[str]:
    """Command lines of live processes that contain `text`, this one apart."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line and int(entry.parent.name) != os.getpid():
            found.append(line)
    return found


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return condition()
