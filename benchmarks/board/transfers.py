"""Transfers beside OpenSSH's tools and a naive put, on loopback and through a proxy that delays, in one run.

    .venv/bin/python benchmarks/board/transfers.py

Needs an OpenSSH server and client; rsync is included where it is there. Every way starts from nothing: connecting and
logging in are inside the time, and what was sent is checked afterwards.
"""

from __future__ import annotations

import getpass
import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import paramiko

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "integration"))
from ssh_server import SshServer, find_sshd, free_port, make_key

from edgekd.board.connection.open import open_session
from edgekd.board.provisioning.deploy import deploy_files

RESULTS = Path(__file__).parent / "results" / "transfers.json"
REPEATS = 9
ROUND_TRIP_S = 0.010


class DelayingProxy:
    """Passes bytes on after half a round trip each way, in order, without limiting the rate."""

    def __init__(self, port: int, round_trip_s: float) -> None:
        self._delay_s = round_trip_s / 2
        self._target = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.bytes_up = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._server.accept()
            board = socket.create_connection(("127.0.0.1", self._target))
            for end in (client, board):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for source, sink, up in ((client, board, True), (board, client, False)):
                queue: list[tuple[float, bytes]] = []
                ready = threading.Condition()
                threading.Thread(target=self._read, args=(source, queue, ready, up), daemon=True).start()
                threading.Thread(target=self._write, args=(sink, queue, ready), daemon=True).start()

    def _read(
        self, source: socket.socket, queue: list[tuple[float, bytes]], ready: threading.Condition, up: bool
    ) -> None:
        while True:
            try:
                data = source.recv(65536)
            except OSError:
                data = b""
            if up:
                self.bytes_up += len(data)
            with ready:
                queue.append((time.monotonic() + self._delay_s, data))
                ready.notify()
            if not data:
                return

    @staticmethod
    def _write(sink: socket.socket, queue: list[tuple[float, bytes]], ready: threading.Condition) -> None:
        while True:
            with ready:
                while not queue:
                    ready.wait()
                due, data = queue.pop(0)
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                if not data:
                    sink.shutdown(socket.SHUT_WR)
                    return
                sink.sendall(data)
            except OSError:
                return


def start_server(root: Path) -> SshServer:
    client = root / "client"
    (client / ".ssh").mkdir(parents=True)
    make_key(client / ".ssh" / "id_ed25519")
    os.environ["HOME"] = str(client)
    os.environ.pop("SSH_AUTH_SOCK", None)
    os.environ.pop("EDGEKD_BOARD_HOME", None)
    binary = find_sshd()
    assert binary, "sshd is not installed"
    Path("/run/sshd").mkdir(exist_ok=True)
    (root / "sshd").mkdir()
    (root / "board").mkdir()
    server = SshServer(binary, root / "sshd", free_port(), root / "board", client, getpass.getuser())
    server.options = ["Subsystem sftp internal-sftp"]
    server.new_host_key()
    (server.root / "authorized_keys").write_text((client / ".ssh" / "id_ed25519.pub").read_text())
    server.start()
    return server


def trust(server: SshServer, ports: list[int]) -> None:
    key = " ".join((server.root / "host_key.pub").read_text().split()[:2])
    server.known_hosts.write_text("".join(f"[127.0.0.1]:{port} {key}\n" for port in ports))


def ways(server: SshServer, port: int, folder: Path, files: list[Path]) -> dict[str, Callable[[str], None]]:
    """Each puts all files into a new directory of the board, named by its argument."""
    known = f"UserKnownHostsFile={server.known_hosts}"
    options = ["-o", known, "-o", "BatchMode=yes", "-i", str(server.identity)]
    target = f"{server.user}@127.0.0.1"
    destination = str(server.home)

    def ours(name: str) -> None:
        with open_session(f"{target}:{port}") as session:
            deploy_files(session, {path.name: path for path in files}, name)

    def scp(name: str) -> None:
        command = ["scp", "-q", "-r", *options, "-P", str(port), str(folder), f"{target}:{destination}/{name}"]
        subprocess.run(command, check=True)

    def tar_over_ssh(name: str) -> None:
        remote = f"mkdir -p {destination}/{name} && tar -xf - -C {destination}/{name}"
        tar = subprocess.Popen(["tar", "-cf", "-", "-C", str(folder), "."], stdout=subprocess.PIPE)
        subprocess.run(["ssh", *options, "-p", str(port), target, remote], stdin=tar.stdout, check=True)
        assert tar.wait() == 0

    def rsync(name: str) -> None:
        shell = f"ssh -o {known} -o BatchMode=yes -i {server.identity} -p {port}"
        subprocess.run(["rsync", "-a", "-e", shell, f"{folder}/", f"{target}:{destination}/{name}/"], check=True)

    def naive_put(name: str) -> None:
        client = paramiko.SSHClient()
        client.load_host_keys(str(server.known_hosts))
        client.connect("127.0.0.1", port=port, username=server.user, key_filename=str(server.identity))
        sftp = client.open_sftp()
        sftp.mkdir(f"{destination}/{name}")
        for path in files:
            sftp.put(str(path), f"{destination}/{name}/{path.name}")
        client.close()

    found = {"edgekd": ours, "scp": scp, "tar over ssh": tar_over_ssh, "paramiko put": naive_put}
    return {**found, "rsync": rsync} if shutil.which("rsync") else found


def cpu_seconds(server: SshServer) -> float:
    """CPU time used so far by this process, by those it ran, and by the server with all that it ran."""
    here = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    assert server.process is not None
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    ticks = sum(int(field) for field in fields[11:15])
    return sum(usage.ru_utime + usage.ru_stime for usage in here) + ticks / os.sysconf("SC_CLK_TCK")


def timed(
    server: SshServer, each: dict[str, Callable[[str], None]], count: int, repeats: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds and CPU seconds of every way, interleaved so that a disturbance falls on all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in each}
    cpu: dict[str, list[float]] = {name: [] for name in each}
    for repeat in range(repeats):
        for name, way in each.items():
            label = f"{name.replace(' ', '-')}-{repeat}"
            began, used = time.monotonic(), cpu_seconds(server)
            way(label)
            seconds[name].append(time.monotonic() - began)
            # The server takes note of a session's CPU time when it has ended.
            time.sleep(0.3)
            cpu[name].append(cpu_seconds(server) - used)
            where = server.home / ".edgekd/runs" / label if name == "edgekd" else server.home / label
            arrived = [path for path in where.iterdir() if not path.name.startswith(".")]
            assert len(arrived) == count, (name, len(arrived))
            shutil.rmtree(where)
    return seconds, cpu


def second_deploy_bytes(server: SshServer, proxy: DelayingProxy, files: list[Path]) -> dict[str, int]:
    """Bytes that went to the board, encryption and log-in included, for a first and a second deploy of the same."""
    sent = {}
    for which in ("first", "second"):
        before = proxy.bytes_up
        with open_session(f"{server.user}@127.0.0.1:{proxy.port}") as session:
            deploy_files(session, {path.name: path for path in files}, "again")
        time.sleep(0.2)
        sent[which] = proxy.bytes_up - before
    return sent


def main() -> None:
    rows: dict[str, object] = {}
    with TemporaryDirectory(prefix="edgekd-transfers-") as temporary:
        root = Path(temporary)
        server = start_server(root)
        proxy = DelayingProxy(server.port, ROUND_TRIP_S)
        trust(server, [server.port, proxy.port])
        large, small = root / "large", root / "small"
        large.mkdir()
        small.mkdir()
        (large / "model.bin").write_bytes(os.urandom(50 * 10**6))
        for number in range(200):
            (small / f"file{number:03d}.bin").write_bytes(os.urandom(2000 + 37 * number))
        run_files = [path for path in small.iterdir()][:20]
        try:
            for case, port, folder, repeats in (
                ("50 MB, loopback", server.port, large, REPEATS),
                ("200 files, loopback", server.port, small, REPEATS),
                ("200 files, 10 ms round trip", proxy.port, small, 3),
            ):
                files = sorted(folder.iterdir())
                seconds, cpu = timed(server, ways(server, port, folder, files), len(files), repeats)
                rows[case], rows[f"{case}, CPU"] = seconds, cpu
                for what, each in (("", seconds), (", CPU", cpu)):
                    print(case + what, {name: round(statistics.median(found), 3) for name, found in each.items()})
            rows["bytes to the board, 20 files"] = second_deploy_bytes(server, proxy, run_files)
            print(rows["bytes to the board, 20 files"])
        finally:
            server.stop()
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
