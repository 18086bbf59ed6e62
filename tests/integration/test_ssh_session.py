"""Sessions over a real OpenSSH server, and how they fail."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from edgekd.board.connection.open import open_session
from edgekd.board.connection.transfer import LISTING_NAME, put_files
from edgekd.errors import BoardError


def test_commands_report_output_exit_code_and_signal(sshd):
    with open_session(sshd.board) as session:
        assert session.home == f"{sshd.home}/.edgekd"
        result = session.run(["sh", "-c", "echo out; echo err >&2; exit 7"], check=False)
        assert (result.stdout, result.stderr, result.exit_code, result.signal) == ("out\n", "err\n", 7, None)
        killed = session.run(["sh", "-c", "kill -KILL $$"], check=False)
        assert (killed.exit_code, killed.signal) == (None, 9)
        awkward = ["a b", "it's", 'say "x"', "$HOME", "`id`", "back\\slash", "new\nline", "", "*", "!!", "-n"]
        echoed = session.run(["printf", "%s|", *awkward])
        assert echoed.stdout == "".join(f"{word}|" for word in awkward)
        assert session.run(["cat"], stdin=b"fed").stdout == "fed"


def test_put_and_get_round_trip_and_skip(sshd, tmp_path):
    local = tmp_path / "data.bin"
    local.write_bytes(bytes(range(256)) * 20_000)
    with open_session(sshd.board) as session:
        root = f"{session.home}/deep/er"
        assert put_files(session, root, {"data.bin": local}).sent == ("data.bin",)
        assert put_files(session, root, {"data.bin": local}).skipped == ("data.bin",)
        session.get(f"{root}/data.bin", tmp_path / "back.bin")
        assert (tmp_path / "back.bin").read_bytes() == local.read_bytes()
        there = {path.name for path in Path(session.home).rglob("*") if path.is_file()}
        assert there == {"data.bin", LISTING_NAME}


def test_unknown_host_key_is_refused_and_accepted_on_request(sshd):
    sshd.known_hosts.unlink()
    with pytest.raises(BoardError, match="unknown.*SHA256:.*--accept-new-host-key"):
        open_session(sshd.board)
    assert not sshd.known_hosts.exists()
    with open_session(sshd.board, accept_new_host_key=True) as session:
        assert session.run(["echo", "hi"]).stdout == "hi\n"
    with open_session(sshd.board) as session:
        assert session.run(["echo", "again"]).stdout == "again\n"


def test_changed_host_key_is_always_refused_and_the_line_named(sshd):
    sshd.known_hosts.write_text("# a comment\n" + sshd.known_hosts.read_text())
    sshd.stop()
    sshd.new_host_key()
    sshd.start()
    before = sshd.known_hosts.read_text()
    for accept in (False, True):
        with pytest.raises(BoardError, match=rf"CHANGED.*{sshd.known_hosts} line 2"):
            open_session(sshd.board, accept_new_host_key=accept)
    assert sshd.known_hosts.read_text() == before


def test_refused_login(sshd):
    (sshd.root / "authorized_keys").write_text("")
    with pytest.raises(BoardError, match="login refused for user .*authorized_keys"):
        open_session(sshd.board, identity=sshd.identity)


def test_unreachable_port(sshd):
    sshd.stop()
    with pytest.raises(BoardError, match=f"cannot be reached at 127.0.0.1 port {sshd.port}.*refused"):
        open_session(sshd.board)


def test_a_server_that_is_not_ssh():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        import threading

        def answer():
            for _ in range(3):
                connection, _ = server.accept()
                connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
                connection.close()

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(BoardError, match="no SSH connection came about"):
            open_session(f"me@127.0.0.1:{port}")


def test_ssh_config_alias_identity_and_jump_host(make_sshd, tmp_path):
    jump, target = make_sshd(), make_sshd()
    moved = tmp_path / "elsewhere_key"
    sshd_identity = jump.identity
    sshd_identity.rename(moved)
    target.known_hosts.write_text(
        "".join(
            f"[127.0.0.1]:{server.port} {' '.join((server.root / 'host_key.pub').read_text().split()[:2])}\n"
            for server in (jump, target)
        )
    )
    (jump.client_home / ".ssh" / "config").write_text(
        f"Host hop\n  HostName 127.0.0.1\n  Port {jump.port}\n  User {jump.user}\n  IdentityFile {moved}\n"
        f"Host pi\n  HostName 127.0.0.1\n  Port {target.port}\n  User {target.user}\n  IdentityFile {moved}\n"
        "  ProxyJump hop\n"
    )
    with open_session("pi") as session:
        assert session.home == f"{target.home}/.edgekd"
        assert session.run(["echo", "far"]).stdout == "far\n"
    (jump.root / "authorized_keys").write_text("")
    with pytest.raises(BoardError, match=r"jump host hop.*login refused"):
        open_session("pi")


def test_encrypted_key_and_missing_identity(sshd):
    import subprocess

    from edgekd.errors import ConfigurationError

    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", str(sshd.identity)], check=True)
    with pytest.raises(BoardError, match="encrypted.*ssh-add"):
        open_session(sshd.board, identity=sshd.identity)
    with pytest.raises(ConfigurationError, match="no such file"):
        open_session(sshd.board, identity=sshd.identity.with_name("nope"))


def test_a_wrong_password_is_refused_and_never_shown(make_sshd, monkeypatch):
    server = make_sshd(options=["PubkeyAuthentication no", "PasswordAuthentication yes"])
    config = server.root / "sshd_config"
    server.stop()
    config.write_text(config.read_text().replace("PasswordAuthentication no\n", "", 1))
    server.start()
    monkeypatch.setenv("EDGEKD_SSH_PASSWORD", "hunter2-wrong")
    with pytest.raises(BoardError, match="login refused.*a password") as caught:
        open_session(server.board)
    assert "hunter2" not in str(caught.value)
