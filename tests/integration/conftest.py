"""Starts sshd for a test, and stops it."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ssh_server import SshServer, find_sshd, free_port, make_key


@pytest.fixture(scope="session")
def sshd_binary() -> str:
    binary = find_sshd()
    if binary is None:
        message = "OpenSSH server (sshd) is not installed"
        if os.environ.get("EDGEKD_REQUIRE_SSHD") == "1":
            pytest.fail(message + ", and EDGEKD_REQUIRE_SSHD=1")
        pytest.skip(message)
    return binary


@pytest.fixture
def make_sshd(sshd_binary: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., SshServer]]:
    servers: list[SshServer] = []
    client_home = tmp_path / "client"
    (client_home / ".ssh").mkdir(parents=True)
    make_key(client_home / ".ssh" / "id_ed25519")
    monkeypatch.setenv("HOME", str(client_home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.delenv("EDGEKD_BOARD_HOME", raising=False)
    monkeypatch.delenv("EDGEKD_SSH_PASSWORD", raising=False)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)

    def make(
        environment: dict[str, str] | None = None,
        options: list[str] | None = None,
        address: str = "127.0.0.1",
        prefix: tuple[str, ...] = (),
    ) -> SshServer:
        root = tmp_path / f"sshd{len(servers)}"
        home = tmp_path / f"board{len(servers)}"
        root.mkdir()
        home.mkdir()
        server = SshServer(
            binary=sshd_binary,
            root=root,
            port=free_port(),
            home=home,
            client_home=client_home,
            user=getpass.getuser(),
            environment=environment or {},
            options=options or [],
            address=address,
            prefix=prefix,
        )
        server.new_host_key()
        (root / "authorized_keys").write_text((client_home / ".ssh" / "id_ed25519.pub").read_text())
        server.start()
        servers.append(server)
        server.trust()
        return server

    yield make
    for server in servers:
        server.stop()


@pytest.fixture
def sshd(make_sshd: Callable[..., SshServer]) -> SshServer:
    return make_sshd()
