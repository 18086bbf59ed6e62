"""known_hosts, as ssh-keygen itself writes it."""

from __future__ import annotations

import base64
import shutil
import subprocess

import pytest

from edgekd.board.connection.host_keys import check_host_key, fingerprint, known_keys
from edgekd.errors import BoardError

KIND = "ssh-ed25519"


def blob(letter: bytes) -> bytes:
    return b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + letter * 32


def line(names: str, key: bytes, marker: str = "") -> str:
    return f"{marker}{names} {KIND} {base64.b64encode(key).decode()} comment\n"


@pytest.fixture
def known_hosts(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    return tmp_path / ".ssh" / "known_hosts"


def check(host="pi", port=22, key=b"a", accept_new=False):
    check_host_key(host, port, KIND, blob(key), accept_new=accept_new)


@pytest.mark.parametrize("names", ["pi", "PI", "other,pi", "p?", "*,!other", "10.0.0.1,pi"])
def test_known_names_and_patterns(known_hosts, names):
    known_hosts.write_text(line(names, blob(b"a")))
    check()


@pytest.mark.parametrize("names", ["pi2", "*,!pi", "[pi]:22", "[pi]:2222", "i"])
def test_names_that_are_others(known_hosts, names):
    known_hosts.write_text(line(names, blob(b"a")))
    with pytest.raises(BoardError, match="unknown"):
        check()


def test_another_port_is_another_server(known_hosts):
    known_hosts.write_text(line("pi", blob(b"a")))
    with pytest.raises(BoardError, match=r"\[pi\]:2222: its host key is unknown"):
        check(port=2222)
    known_hosts.write_text(line("[pi]:2222", blob(b"a")))
    check(port=2222)


def test_several_keys_of_a_host(known_hosts):
    known_hosts.write_text(line("pi", blob(b"b")) + line("pi", blob(b"a")))
    check()


def test_changed_key_is_refused_even_with_accept_new(known_hosts):
    known_hosts.write_text("\n# comment\n" + line("pi", blob(b"b")))
    for accept_new in (False, True):
        with pytest.raises(BoardError, match=f"CHANGED.*{known_hosts} line 3"):
            check(accept_new=accept_new)


def test_a_key_of_another_type_is_a_changed_key(known_hosts):
    known_hosts.write_text(f"pi ssh-rsa {base64.b64encode(b'x' * 40).decode()}\n")
    with pytest.raises(BoardError, match="CHANGED"):
        check(accept_new=True)


def test_revoked_key_is_refused(known_hosts):
    known_hosts.write_text(line("pi", blob(b"a")) + line("*", blob(b"a"), marker="@revoked "))
    with pytest.raises(BoardError, match="revoked.*line 2"):
        check(accept_new=True)


def test_accepting_appends_one_line_and_keeps_the_rest(known_hosts):
    known_hosts.write_text("# mine, without a newline at the end")
    check(accept_new=True)
    check()
    lines = known_hosts.read_text().splitlines()
    assert lines[0] == "# mine, without a newline at the end"
    assert len(lines) == 2


def test_malformed_lines_are_passed_over(known_hosts):
    known_hosts.write_text("pi\npi ssh-ed25519\npi ssh-ed25519 %%%\n|1|x|y ssh-ed25519 AAAA\n@cert-authority pi a b\n")
    assert known_keys(known_hosts, "pi") == []


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
def test_hashed_names_and_fingerprints_agree_with_openssh(known_hosts):
    known_hosts.write_text(line("pi", blob(b"a")))
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(known_hosts)], check=True, capture_output=True)
    assert known_hosts.read_text().startswith("|1|")
    check()
    shown = subprocess.run(["ssh-keygen", "-lf", str(known_hosts)], check=True, capture_output=True, text=True).stdout
    assert fingerprint(blob(b"a")) in shown
