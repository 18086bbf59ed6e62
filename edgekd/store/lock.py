"""One writer a run."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from edgekd.errors import ConfigurationError
from edgekd.store.atomic import output_error


@contextlib.contextmanager
def exclusive(lock_file: Path, who: str) -> Iterator[None]:
    """Hold `lock_file` while the block runs. The kernel drops the lock when its process dies, however it dies.

    Raises:
        ConfigurationError: another process holds it (the message says which), or the file cannot be written.
    """
    try:
        descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise output_error(lock_file, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigurationError(
                f"{lock_file.parent} is in use by {_holder(descriptor)}: wait for it to end, or stop it"
            ) from error
        except OSError as error:
            raise output_error(lock_file, error) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"who": who, "pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
        yield
        # The file stays: removing it would let two processes lock two different files of that name.
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f"'{holder['who']}', process {holder['pid']} on {holder['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
