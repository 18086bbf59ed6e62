"""A stand-in for docker's command line that really runs what it is given, on this machine and without isolation.

What it keeps of docker: `run --rm -i` lives as long as its first process and is then removed with all that `exec`
started in it; killing the client of `exec` does not end what runs inside; names, labels, `ps`, `rm -f`, and the words
of its errors. State lies in $STAND_IN_STATE, one folder a container.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

STATE = Path(os.environ["STAND_IN_STATE"])


def fail(text, code=1):
    sys.stderr.write(text + "\n")
    sys.exit(code)


def remove(name):
    folder = STATE / name
    for file in (*folder.glob("exec-*"), *folder.glob("main-*")):
        with contextlib.suppress(ProcessLookupError, ValueError):
            os.killpg(int(file.name.partition("-")[2]), signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def run(words):
    options, rest = {}, []
    for position, word in enumerate(words):
        if not word.startswith("-"):
            rest = words[position:]
            break
        key, _, value = word.partition("=")
        options.setdefault(key, []).append(value)
    image, *command = rest
    if os.environ.get("STAND_IN_RUN") == "fails":
        fail("docker: Error response from daemon: failed to create task: OCI runtime create failed", 125)
    name = options["--name"][0]
    folder = STATE / name
    folder.mkdir(parents=True)
    (folder / "label").write_text(options["--label"][0])
    process = subprocess.Popen([options["--entrypoint"][0], *command], start_new_session=True)
    (folder / f"main-{process.pid}").touch()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: process.kill())
    code = process.wait()
    remove(name)
    sys.exit(code if code >= 0 else 128 - code)


def execute(words):
    assert words[0] == "-i"
    name, *command = words[1:]
    folder = STATE / name
    if not folder.is_dir():
        fail(f"Error response from daemon: No such container: {name}")
    with (STATE / "log.txt").open("a") as log:
        log.write(" ".join(command)[:1000].replace("\n", " ") + "\n")
    process = subprocess.Popen(command, start_new_session=True)
    mark = folder / f"exec-{process.pid}"
    mark.touch()
    code = process.wait()
    mark.unlink(missing_ok=True)
    sys.exit(code if code >= 0 else 128 - code)


def main():
    verb, *words = sys.argv[1:]
    STATE.mkdir(exist_ok=True)
    if verb == "image":
        kind = os.environ.get("STAND_IN_IMAGE", "there")
        if kind == "no rights":
            fail("permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock")
        if kind == "no daemon":
            fail("Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?")
        if kind == "absent":
            fail(f"Error response from daemon: No such image: {words[-1]}")
        sys.stdout.write("sha256:0123\n")
    elif verb == "ps":
        label = words[-1].removeprefix("label=")
        for folder in STATE.glob("*/label"):
            if folder.read_text() == label:
                sys.stdout.write(folder.parent.name + "\n")
    elif verb == "rm":
        for name in words[1:]:
            remove(name)
    elif verb == "run":
        run(words)
    elif verb == "exec":
        execute(words)
    elif verb != "info":
        fail(f"unknown command {verb}")


if __name__ == "__main__":
    main()
