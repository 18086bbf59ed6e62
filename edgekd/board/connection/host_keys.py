"""Decides about a server's host key from known_hosts, as sshd(8) describes the file."""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
import os
from dataclasses import dataclass
from pathlib import Path

from edgekd.core.board_output import printable
from edgekd.errors import BoardError, ConfigurationError


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A line of known_hosts that names the host in question."""

    path: Path
    line: int
    kind: str
    blob: bytes
    revoked: bool


def ssh_directory() -> Path:
    """`.ssh` of $HOME, which may differ from the password database's home (in containers, under sudo, in tests).

    Raises:
        ConfigurationError: HOME is not set.
    """
    home = os.environ.get("HOME")
    if not home:
        raise ConfigurationError("HOME is not set, so known_hosts and keys cannot be found: set it")
    return Path(home) / ".ssh"


def known_host_name(host: str, port: int) -> str:
    """The name by which known_hosts knows a host and port."""
    return host.lower() if port == 22 else f"[{host.lower()}]:{port}"


def fingerprint(blob: bytes) -> str:
    """The fingerprint of a public key as OpenSSH prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def _names_host(patterns: str, name: str) -> bool:
    if patterns.startswith("|1|"):
        try:
            salt, digest = (base64.b64decode(part) for part in patterns[3:].split("|"))
        except (ValueError, binascii.Error):
            return False
        return hmac.compare_digest(hmac.new(salt, name.encode(), hashlib.sha1).digest(), digest)
    matched = False
    for pattern in patterns.lower().split(","):
        # Brackets stand for themselves in known_hosts, not for a set of characters.
        negated = pattern.startswith("!")
        if fnmatch.fnmatchcase(name, pattern.removeprefix("!").replace("[", "[[]")):
            if negated:
                return False
            matched = True
    return matched


def known_keys(path: Path, name: str) -> list[KnownKey]:
    """The lines of a known_hosts file that hold a key for `name`. Lines that are malformed are passed over."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    keys = []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) < 3 or words[0].startswith("#") or marker not in ("", "@revoked"):
            continue
        try:
            blob = base64.b64decode(words[2], validate=True)
        except (ValueError, binascii.Error):
            continue
        if _names_host(words[0], name):
            keys.append(KnownKey(path, number, words[1], blob, marker == "@revoked"))
    return keys


def check_host_key(host: str, port: int, kind: str, blob: bytes, *, accept_new: bool) -> None:
    """Let a known key pass, refuse a changed or revoked one, and refuse or remember one of an unknown host.

    Args:
        host: as the user reaches it.
        port: its TCP port.
        kind: the key's type, such as `ssh-ed25519`.
        blob: the public key in wire format.
        accept_new: append an unknown host's key to known_hosts instead of refusing it.

    Raises:
        BoardError: the key is not the known one, or the host is unknown.
    """
    path = ssh_directory() / "known_hosts"
    name = known_host_name(host, port)
    keys = known_keys(path, name)
    for key in keys:
        if key.revoked and key.blob == blob:
            raise BoardError(f"{name}: its host key {fingerprint(blob)} is marked as revoked in {path} line {key.line}")
    valid = [key for key in keys if not key.revoked]
    if any(key.blob == blob for key in valid):
        return
    if valid:
        same = next((key for key in valid if key.kind == kind), valid[0])
        raise BoardError(
            f"{name}: its host key has CHANGED. It shows {kind} {fingerprint(blob)}, but {path} line {same.line} has "
            f"{same.kind} {fingerprint(same.blob)}. Either the board was set up anew or somebody is in between. "
            f"Nothing was sent. If you know why it changed, remove that line: ssh-keygen -R '{name}'"
        )
    if not accept_new:
        raise BoardError(
            f"{name}: its host key is unknown: {kind} {fingerprint(blob)} is not in {path}. Compare it with what "
            f"`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` prints on the board, then connect once with ssh or "
            "pass --accept-new-host-key"
        )
    _append(path, f"{name} {kind} {base64.b64encode(blob).decode()}\n")


def _append(path: Path, line: str) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        before = path.read_bytes() if path.exists() else b""
        with path.open("ab") as file:
            # A file that does not end in a newline would swallow the new line into its last one.
            file.write((b"\n" if before and not before.endswith(b"\n") else b"") + line.encode())
    except OSError as error:
        raise ConfigurationError(f"{printable(str(path))} cannot be written: {error.strerror}") from error
