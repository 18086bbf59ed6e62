"""Bundles a runtime's wheels for a board that needs neither pip nor the internet."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import platformdirs

from edgekd.board.connection.transfer import check_name, sha256_file, tar_stream
from edgekd.core.board_output import printable
from edgekd.errors import BoardError, ConfigurationError
from edgekd.records import RuntimeName

logger = logging.getLogger(__name__)

PIP_TIMEOUT_S = 900
LEAST_GLIBC = (2, 17)
ARCHITECTURES = ("aarch64", "x86_64", "armv7l")
BUNDLE_FORMAT = 2
# Wheels shrink to about a third at this level; higher ones cost seconds and save a few per cent.
GZIP_LEVEL = 6
_TAG = re.compile(r"manylinux_(\d{1,2})_(\d{1,3})_(\w+)")
_OLD_TAGS = {"manylinux2014": (2, 17)}


@dataclass(frozen=True, slots=True)
class RuntimePackage:
    """A runtime as a package: `requirements` are all that is sent so that `module` can be imported.

    `distributions` are the names under which a board may have it already; the first is the one that is sent.
    """

    distributions: tuple[str, ...]
    module: str
    least_version: str
    requirements: tuple[str, ...]

    @property
    def package(self) -> str:
        """The name of the package that is sent."""
        return self.distributions[0]


_LITERT = RuntimePackage(
    ("ai-edge-litert",), "ai_edge_litert.interpreter", "2.1", ("ai-edge-litert>=2.1,<3", "numpy>=1.23,<3")
)
# For 32-bit userlands nothing newer exists, and no wheel of numpy either: the board's own package has to serve.
_TFLITE_RUNTIME = RuntimePackage(
    ("tflite-runtime",), "tflite_runtime.interpreter", "2.13", ("tflite-runtime>=2.13,<3",)
)
_ONNXRUNTIME = RuntimePackage(
    ("onnxruntime", "onnxruntime-gpu"), "onnxruntime", "1.19", ("onnxruntime>=1.19,<2", "numpy>=1.23,<3")
)


@dataclass(frozen=True, slots=True)
class WheelTarget:
    """What decides which wheels fit: the userland's architecture, its glibc, its CPython."""

    architecture: str
    glibc: tuple[int, int]
    python: tuple[int, int]

    def platform_tags(self) -> list[str]:
        """The platform tags (PEP 600) that this glibc takes, newest first."""
        newest, oldest = self.glibc[1], LEAST_GLIBC[1]
        tags = [f"manylinux_2_{minor}_{self.architecture}" for minor in range(newest, oldest - 1, -1)]
        return [*tags, f"manylinux2014_{self.architecture}"]

    def __str__(self) -> str:
        """In words, for messages."""
        return f"{self.architecture}, glibc {self.glibc[0]}.{self.glibc[1]}, Python {self.python[0]}.{self.python[1]}"


def runtime_package(runtime: RuntimeName, architecture: str) -> RuntimePackage:
    """The package that brings a runtime to an architecture.

    Raises:
        BoardError: none exists.
    """
    if architecture != "armv7l":
        return _LITERT if runtime == "tflite" else _ONNXRUNTIME
    if runtime == "tflite":
        return _TFLITE_RUNTIME
    raise BoardError(
        "onnxruntime has no wheels for 32-bit userlands: use --runtime tflite, or install the board's 64-bit system"
    )


def parse_target(platform_tag: str, python: str) -> WheelTarget:
    """`manylinux_2_28_aarch64` and `3.11` as a target.

    Raises:
        ConfigurationError: either is not understood, or no runtime is published for it.
    """
    found = _TAG.fullmatch(platform_tag)
    old, _, rest = platform_tag.partition("_")
    if found:
        glibc, architecture = (int(found.group(1)), int(found.group(2))), found.group(3)
    elif old in _OLD_TAGS:
        glibc, architecture = _OLD_TAGS[old], rest
    else:
        raise ConfigurationError(
            f"--platform '{printable(platform_tag, 60)}' is not a platform tag of PEP 600: give one like "
            "manylinux_2_28_aarch64 (glibc 2.28 or newer there; `edgekd board check` tells a board's own)"
        )
    if architecture not in ARCHITECTURES or glibc < LEAST_GLIBC or glibc[0] != LEAST_GLIBC[0]:
        raise ConfigurationError(
            f"--platform {platform_tag}: runtimes are published for glibc {LEAST_GLIBC[0]}.{LEAST_GLIBC[1]} or newer "
            f"on {', '.join(ARCHITECTURES)}"
        )
    version = re.fullmatch(r"3\.(\d{1,2})", python)
    if version is None or int(version.group(1)) < 9:
        raise ConfigurationError(f"--python '{printable(python, 20)}': give 3.9 or newer, for example 3.11")
    return WheelTarget(architecture, glibc, (3, int(version.group(1))))


@dataclass(frozen=True, slots=True)
class Bundle:
    """A compressed tar archive of installed packages. `identity` names it on boards: a hash of its content."""

    path: Path
    sha256: str
    size_bytes: int
    unpacked_bytes: int

    @property
    def identity(self) -> str:
        """The name of its directory on boards."""
        return self.sha256[:16]


def bundle_cache() -> Path:
    """Where this machine keeps the bundles that it made."""
    return Path(platformdirs.user_cache_dir("edgekd")) / "bundles"


def find_bundle(runtime: RuntimeName, target: WheelTarget) -> Bundle | None:
    """The cached bundle for that target, else one made for an older glibc of the same kind, which fits as well."""
    package = runtime_package(runtime, target.architecture)
    for minor in range(target.glibc[1], LEAST_GLIBC[1] - 1, -1):
        path = _path(package, WheelTarget(target.architecture, (target.glibc[0], minor), target.python))
        if path.is_file():
            return _described(path)
    return None


def cached_bundle(runtime: RuntimeName, target: WheelTarget) -> Bundle:
    """The bundle of that runtime for that target: from this machine's cache, else resolved with pip.

    Raises:
        BoardError: no wheel fits, or they cannot be downloaded.
        ConfigurationError: the cache cannot be written.
    """
    if found := find_bundle(runtime, target):
        return found
    package = runtime_package(runtime, target.architecture)
    path = _path(package, target)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _build(package, target, path)
    except OSError as error:
        raise ConfigurationError(f"the cache {path.parent} cannot be written: {error.strerror or error}") from error
    return _described(path)


def _path(package: RuntimePackage, target: WheelTarget) -> Path:
    request = json.dumps([BUNDLE_FORMAT, package.requirements])
    return bundle_cache() / (
        f"{package.package}-{target.architecture}-glibc{target.glibc[0]}.{target.glibc[1]}"
        f"-cp{target.python[0]}{target.python[1]}-{hashlib.sha256(request.encode()).hexdigest()[:8]}.tar.gz"
    )


def _described(path: Path) -> Bundle:
    # gzip ends with the size of what is inside (RFC 1952: ISIZE, little-endian, modulo 2^32).
    with path.open("rb") as file:
        file.seek(-4, 2)
        unpacked_bytes = int.from_bytes(file.read(4), "little")
    return Bundle(path, sha256_file(path), path.stat().st_size, unpacked_bytes)


def _build(package: RuntimePackage, target: WheelTarget, path: Path) -> None:
    with TemporaryDirectory(prefix=".building-", dir=path.parent) as temporary:
        site = Path(temporary) / "site"
        _install(package, target, site)
        _prune(site)
        files = {str(file.relative_to(site)): file for file in sorted(site.rglob("*")) if file.is_file()}
        for name in files:
            check_name(name)
        partial = Path(temporary) / "bundle.tar.gz"
        # No name and no time inside: the same files give the same bytes, and so the same identity.
        with partial.open("wb") as file, gzip.GzipFile("", "wb", GZIP_LEVEL, file, mtime=0) as archive:
            for chunk in tar_stream(files):
                archive.write(chunk)
        partial.replace(path)


def _install(package: RuntimePackage, target: WheelTarget, site: Path) -> None:
    """Let pip resolve and unpack wheels of another platform. Markers of dependencies would be read for this one."""
    python = f"{target.python[0]}.{target.python[1]}"
    abi = f"cp{target.python[0]}{target.python[1]}"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-deps", "--no-compile", "--only-binary=:all:", "--target", str(site)]
    command += ["--implementation", "cp", "--python-version", python, "--abi", abi, "--abi", "abi3", "--abi", "none"]
    for tag in target.platform_tags():
        command += ["--platform", tag]
    try:
        done = subprocess.run(
            [*command, *package.requirements], capture_output=True, text=True, timeout=PIP_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise BoardError(f"downloading {package.package} took more than {PIP_TIMEOUT_S} s: try again") from error
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise BoardError(
            f"no wheels of {' and '.join(package.requirements)} could be had for Python {python} on "
            f"{target.architecture} with glibc {target.glibc[0]}.{target.glibc[1]}: "
            f"{printable(' '.join(said[-2:]), 400)}. This machine (not the board) has to reach a package index once"
        )


def _prune(site: Path) -> None:
    """Drop what no import needs: a board's link is slow."""
    for file in [path for path in site.rglob(".*") if path.is_file()]:
        file.unlink()
    for directory in [path for name in ("tests", "__pycache__", "bin") for path in site.rglob(name)]:
        shutil.rmtree(directory, ignore_errors=True)
