"""Opens an SSH connection: address and options from ~/.ssh/config, own socket, host key, login."""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import socket
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import paramiko

from edgekd.board.connection.address import Address, parse_board
from edgekd.board.connection.host_keys import check_host_key, known_host_name, known_keys, ssh_directory
from edgekd.board.connection.pump import LinkLostError
from edgekd.core.board_output import printable
from edgekd.errors import BoardError, ConfigurationError

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10.0
HANDSHAKE_TIMEOUT_S = 12.0
# A server with too many logins under way (MaxStartups) drops some at once: those are worth another try.
DROPPED_WITHIN_S = 3.0
DROPPED_PAUSES_S = (0.5, 1.5)
USER_TIMEOUT_MS = 8_000
MAX_JUMPS = 4
PASSWORD_VARIABLE = "EDGEKD_SSH_PASSWORD"


class HandshakeError(LinkLostError):
    """Somebody answers at that port, but no SSH connection came about."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to connect and as whom, after ~/.ssh/config was applied. `known_as` is the name in known_hosts."""

    host: str
    port: int
    user: str
    known_as: str
    known_port: int
    identities: tuple[Path, ...]
    jumps: tuple[str, ...] = ()
    proxy_command: str | None = None
    timeout_s: float = CONNECT_TIMEOUT_S


@dataclass(slots=True)
class Connection:
    """An authenticated connection, and those it goes through."""

    client: Any
    through: list[Any] = field(default_factory=list)

    @property
    def transport(self) -> Any:
        """The transport of paramiko."""
        return self.client.get_transport()

    def close(self) -> None:
        """Close it, then what it goes through."""
        for client in (self.client, *reversed(self.through)):
            with contextlib.suppress(OSError, EOFError):
                client.close()


def resolve(address: Address, identity: Path | None) -> Target:
    """Apply ~/.ssh/config: Host, HostName, Port, User, IdentityFile, HostKeyAlias, ProxyJump, ProxyCommand.

    Raises:
        ConfigurationError: the file cannot be read or understood.
    """
    path = ssh_directory() / "config"
    options: dict[str, Any] = {}
    if path.is_file():
        try:
            options = dict(paramiko.SSHConfig.from_path(str(path)).lookup(address.host))
        except (paramiko.ConfigParseError, OSError) as error:
            raise ConfigurationError(f"{path} cannot be used: {printable(str(error))}") from error
    host = options.get("hostname", address.host)
    port = address.port or int(options.get("port", 22))
    user = address.user or options.get("user") or getpass.getuser()
    files = (identity,) if identity else tuple(_expand(name) for name in options.get("identityfile", ()))
    jumps = options.get("proxyjump", "none")
    command = options.get("proxycommand")
    return Target(
        host=host,
        port=port,
        user=user,
        known_as=options.get("hostkeyalias", host),
        # An alias stands in known_hosts as it is, whatever the port.
        known_port=22 if "hostkeyalias" in options else port,
        identities=tuple(file for file in files if file.is_file()),
        jumps=() if jumps.lower() == "none" else tuple(part.strip() for part in jumps.split(",")),
        proxy_command=None if command is None or command.lower() == "none" else command,
    )


def _expand(name: str) -> Path:
    return ssh_directory().parent / name[2:] if name.startswith("~/") else Path(name)


def connect(
    name: str,
    address: Address,
    *,
    identity: Path | None,
    accept_new_host_key: bool,
    timeout_s: float = CONNECT_TIMEOUT_S,
) -> Connection:
    """Connect and log in. `timeout_s` bounds each of connecting and logging in.

    Raises:
        LinkLostError: unreachable now.
        BoardError: its key is unknown or changed, the login was refused.
        ConfigurationError: ~/.ssh/config or a key file cannot be used.
    """
    target = replace(resolve(address, identity), timeout_s=timeout_s)
    for pause_s in DROPPED_PAUSES_S:
        began = time.monotonic()
        try:
            return _connect_once(name, target, identity, accept_new_host_key)
        except HandshakeError as error:
            if time.monotonic() - began > DROPPED_WITHIN_S:
                raise
            logger.info("%s; trying again in %.1f s", error, pause_s)
            time.sleep(pause_s)
    return _connect_once(name, target, identity, accept_new_host_key)


def _connect_once(name: str, target: Target, identity: Path | None, accept_new_host_key: bool) -> Connection:
    through: list[Any] = []
    try:
        via = _through_jumps(name, target, through, accept_new_host_key)
        client = _log_in(name, target, via, explicit=identity is not None, accept_new=accept_new_host_key)
    except BaseException:
        for jump in reversed(through):
            jump.close()
        raise
    return Connection(client, through)


def _through_jumps(name: str, target: Target, through: list[Any], accept_new: bool) -> Any:
    """The socket to the target: direct, through a command, or through other hosts, which are added to `through`."""
    if target.proxy_command:
        return lambda: _proxy_command(name, target.proxy_command or "")
    if not target.jumps:
        return lambda: open_socket(name, target.host, target.port, target.timeout_s)
    if len(target.jumps) > MAX_JUMPS:
        raise ConfigurationError(f"{name}: ProxyJump names more than {MAX_JUMPS} hosts")
    opener: Any = None
    for jump in target.jumps:
        address = parse_board(jump.removeprefix("ssh://"))
        if address is None:
            raise ConfigurationError(f"{name}: ProxyJump cannot be 'local'")
        hop = resolve(address, None)
        opener = opener or (lambda hop=hop: open_socket(name, hop.host, hop.port, target.timeout_s))
        client = _log_in(f"{name} (jump host {printable(jump)})", hop, opener, explicit=False, accept_new=accept_new)
        through.append(client)
        following = target.jumps[len(through)] if len(through) < len(target.jumps) else None
        goal = (target.host, target.port)
        if following is not None:
            after = parse_board(following.removeprefix("ssh://"))
            resolved = resolve(after, None) if after else target
            goal = (resolved.host, resolved.port)
        opener = _tunnel(name, client, goal)
    return opener


def _proxy_command(name: str, command: str) -> Any:
    try:
        return paramiko.ProxyCommand(command)
    except (OSError, ValueError) as error:
        raise BoardError(f"{name}: ProxyCommand '{printable(command, 100)}' cannot be started: {error}") from error


def _tunnel(name: str, client: Any, goal: tuple[str, int]) -> Any:
    def opener() -> Any:
        try:
            return client.get_transport().open_channel(
                "direct-tcpip", goal, ("127.0.0.1", 0), timeout=CONNECT_TIMEOUT_S
            )
        except (paramiko.SSHException, OSError) as error:
            raise BoardError(f"{name}: the jump host cannot reach {goal[0]}:{goal[1]}: {error}") from error

    return opener


def open_socket(name: str, host: str, port: int, timeout_s: float = CONNECT_TIMEOUT_S) -> socket.socket:
    """A TCP connection that sends at once and notices within seconds that the other end no longer answers.

    Raises:
        BoardError: the name does not resolve, nobody answers, or the port is closed.
    """
    try:
        connection = socket.create_connection((host, port), timeout=timeout_s)
    except socket.gaierror as error:
        raise BoardError(
            f"{name}: the name '{host}' does not resolve ({error.strerror}): check the spelling"
        ) from error
    except TimeoutError as error:
        raise LinkLostError(
            f"{name}: no answer from {host} port {port} within {timeout_s:.0f} s: is the board on, and on this network?"
        ) from error
    except OSError as error:
        raise LinkLostError(
            f"{name}: cannot be reached at {host} port {port}: {error.strerror or error}. Is the SSH server running, "
            "and is that its port?"
        ) from error
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_USER_TIMEOUT", USER_TIMEOUT_MS),
        ("TCP_KEEPIDLE", 5),
        ("TCP_KEEPINTVL", 3),
        ("TCP_KEEPCNT", 3),
    ):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return connection


class _HostKeyPolicy(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]
    """Hands every key to our own check: paramiko is given no known keys, so that it decides nothing itself."""

    def __init__(self, target: Target, accept_new: bool) -> None:
        self._target = target
        self._accept_new = accept_new

    def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
        """Called by paramiko with the server's key."""
        target = self._target
        check_host_key(target.known_as, target.known_port, key.get_name(), key.asbytes(), accept_new=self._accept_new)


def _preferring_known(target: Target) -> Any:
    """A transport factory that negotiates the type of host key that known_hosts has, as OpenSSH does."""
    path = ssh_directory() / "known_hosts"
    kinds = {
        key.kind for key in known_keys(path, known_host_name(target.known_as, target.known_port)) if not key.revoked
    }

    def factory(connection: Any, **options: Any) -> Any:
        transport = paramiko.Transport(connection, **options)
        security = transport.get_security_options()
        ours = tuple(security.key_types)
        # An RSA key is one key under several signature algorithms.
        known = tuple(kind for kind in ours if kind in kinds or ("rsa" in kind and "ssh-rsa" in kinds))
        security.key_types = known + tuple(kind for kind in ours if kind not in known)
        # paramiko would take these last, though they do without a hash of their own and so are faster.
        ciphers = tuple(security.ciphers)
        fast = tuple(name for name in ciphers if "gcm" in name)
        security.ciphers = fast + tuple(name for name in ciphers if name not in fast)
        return transport

    return factory


def _log_in(name: str, target: Target, open_connection: Any, *, explicit: bool, accept_new: bool) -> Any:
    """Log in with keys or the agent, then with a password where there is one to be had."""
    keys: dict[str, Any] = {
        "key_filename": [str(path) for path in target.identities] or None,
        "allow_agent": not explicit,
        "look_for_keys": not explicit,
    }
    given = os.environ.get(PASSWORD_VARIABLE)
    try:
        return _attempt(name, target, open_connection(), accept_new, keys)
    except paramiko.PasswordRequiredException as error:
        raise BoardError(
            f"{name}: the private key is encrypted: add it to an agent (ssh-add) or name another with --identity"
        ) from error
    except paramiko.AuthenticationException as error:
        refusal = error
    except paramiko.SSHException as error:
        if "No authentication methods" not in str(error):
            raise HandshakeError(_handshake_problem(name, target, error)) from error
        refusal = error
    if given is None and sys.stdin.isatty():
        given = getpass.getpass(f"{target.user}@{target.host}'s password: ")
    if given:
        password = {"password": given, "allow_agent": False, "look_for_keys": False}
        try:
            return _attempt(name, target, open_connection(), accept_new, password)
        except paramiko.AuthenticationException as error:
            refusal = error
        except paramiko.SSHException as error:
            raise HandshakeError(_handshake_problem(name, target, error)) from error
    tried = ", ".join(str(path) for path in target.identities) or (
        "the agent's keys and ~/.ssh/id_*" if not explicit else "no key"
    )
    raise BoardError(
        f"{name}: login refused for user '{target.user}' (tried {tried}{', a password' if given else ''}). Put "
        "your public key into its ~/.ssh/authorized_keys (ssh-copy-id), name a key with --identity, or set "
        f"{PASSWORD_VARIABLE}"
    ) from refusal


def _attempt(name: str, target: Target, connection: Any, accept_new: bool, login: dict[str, Any]) -> Any:
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(_HostKeyPolicy(target, accept_new))
    try:
        client.connect(
            target.host,
            port=target.port,
            username=target.user,
            sock=connection,
            timeout=target.timeout_s,
            banner_timeout=min(HANDSHAKE_TIMEOUT_S, 1.2 * target.timeout_s),
            auth_timeout=min(HANDSHAKE_TIMEOUT_S, 1.2 * target.timeout_s),
            channel_timeout=min(HANDSHAKE_TIMEOUT_S, 1.2 * target.timeout_s),
            transport_factory=_preferring_known(target),
            **login,
        )
    except (OSError, EOFError) as error:
        client.close()
        raise HandshakeError(_handshake_problem(name, target, error)) from error
    except BaseException:
        client.close()
        connection.close()
        raise
    return client


def _handshake_problem(name: str, target: Target, error: BaseException) -> str:
    said = printable(str(error), 200) or "the connection was closed"
    return (
        f"{name}: {target.host} port {target.port} answers, but no SSH connection came about: {said}. Is an SSH server "
        "listening on that port?"
    )
