"""Writing files so that a reader sees the old one or the new one, never half of one."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgekd.errors import ConfigurationError

PARTIAL_MARK = ".partial"
_OUTPUT_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}
_DISK_FULL_BELOW_BYTES = 2**20


def output_error(path: Path, error: OSError) -> ConfigurationError:
    """The error for an output that cannot be written: names the path and the system's reason."""
    reason = error.strerror or str(error)
    return ConfigurationError(f"cannot write {path}: {reason}. Free some space or choose another place with --out")


def _disk_is_full(directory: Path) -> bool:
    return shutil.disk_usage(directory).free < _DISK_FULL_BELOW_BYTES


def partial_path(path: Path) -> Path:
    """A hidden name beside `path`. It keeps the suffix, because writers such as `numpy.savez` look at it."""
    return path.with_name(f".{path.stem}.{os.getpid()}{PARTIAL_MARK}{path.suffix}")


def sync_directory(directory: Path) -> None:
    """Make a rename in `directory` survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync a directory; the rename itself was still atomic.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Flush a file's content to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; it becomes `path` when the block ends well, and vanishes when it does not.

    Raises:
        ConfigurationError: the disk is full, the place is read-only or its folder cannot be made.
    """
    temporary = partial_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        sync_file(temporary)
        temporary.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        _remove(temporary)
        ours = error.filename is not None and Path(os.fsdecode(error.filename)) in (temporary, path, path.parent)
        if ours or error.errno in _OUTPUT_ERRNOS:
            raise output_error(path, error) from error
        raise
    except RuntimeError as error:
        # torch.save reports a full disk as a bare RuntimeError.
        _remove(temporary)
        if path.parent.is_dir() and _disk_is_full(path.parent):
            raise output_error(path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))) from error
        raise
    except BaseException:
        _remove(temporary)
        raise


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


@contextlib.contextmanager
def writing_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder to write files to; they become those of `folder` when the block ends well, else vanish.

    Args:
        folder: empty or not there; only files, no folders, may be made for it.

    Raises:
        ConfigurationError: the disk is full, the place is read-only or the folder cannot be made.
    """
    # An empty folder that is there may be one of few places that can be written, such as a container's mount.
    beside = folder if folder.is_dir() else folder.parent
    try:
        beside.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(prefix=f".{folder.name or 'edgekd'}-", dir=beside)
    except OSError as error:
        raise output_error(folder, error) from error
    with temporary as name:
        yield Path(name)
        try:
            folder.mkdir(exist_ok=True)
            for file in sorted(Path(name).iterdir()):
                file.replace(folder / file.name)
            sync_directory(folder)
        except OSError as error:
            raise output_error(folder, error) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file atomically.

    Raises:
        ConfigurationError: it cannot be written there; what stood there before is untouched.
    """
    with writing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write a whole UTF-8 text file atomically; raises as `write_bytes` does."""
    write_bytes(path, content.encode())


def link_atomically(link: Path, target: str) -> None:
    """Point the symbolic link `link` at `target` without a moment in which it points nowhere.

    Raises:
        ConfigurationError: something that is no link stands there, or it cannot be written.
    """
    if link.exists() and not link.is_symlink():
        raise ConfigurationError(f"{link} is not a link: move it away, edgekd keeps its newest run there")
    temporary = partial_path(link)
    try:
        _remove(temporary)
        temporary.symlink_to(target)
        temporary.replace(link)
    except OSError as error:
        _remove(temporary)
        raise output_error(link, error) from error
