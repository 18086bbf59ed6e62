"""Bundles a runtime's wheels for a board that needs neither pip nor the internet."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import platformdirs

from edgekd.board.transfer import check_name, sha256_file, tar_stream
from edgekd.core.board_output import printable
from edgekd.errors import BoardError, ConfigurationError
from edgekd.records import RuntimeName

logger = logging.getLogger(__name__)

PIP_TIMEOUT_S = 900
LEAST_GLIBC = (2, 17)
ARCHITECTURES = ("aarch64", "x86_64")
BUNDLE_FORMAT = 1


@dataclass(frozen=True, slots=True)
class RuntimePackage:
    """A runtime as a package: `requirements` are all that importing `module` needs, so nothing else is sent."""

    package: str
    module: str
    least_version: str
    requirements: tuple[str, ...]


RUNTIME_PACKAGES: dict[RuntimeName, RuntimePackage] = {
    "tflite": RuntimePackage(
        "ai-edge-litert", "ai_edge_litert.interpreter", "2.1", ("ai-edge-litert>=2.1,<3", "numpy>=1.23,<3")
    ),
    "onnx": RuntimePackage("onnxruntime", "onnxruntime", "1.19", ("onnxruntime>=1.19,<2", "numpy>=1.23,<3")),
}


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


@dataclass(frozen=True, slots=True)
class Bundle:
    """A tar archive of installed packages. `identity` names it on boards: a hash of its content."""

    path: Path
    identity: str
    size_bytes: int


def cached_bundle(runtime: RuntimeName, target: WheelTarget) -> Bundle:
    """The bundle of that runtime for that target: from this machine's cache, else resolved with pip.

    Raises:
        BoardError: no wheel fits, or they cannot be downloaded.
        ConfigurationError: the cache cannot be written.
    """
    package = RUNTIME_PACKAGES[runtime]
    request = json.dumps([BUNDLE_FORMAT, package.requirements, target.platform_tags(), target.python])
    directory = Path(platformdirs.user_cache_dir("edgekd")) / "bundles"
    path = directory / f"{package.package}-{hashlib.sha256(request.encode()).hexdigest()[:16]}.tar"
    if not path.exists():
        try:
            directory.mkdir(parents=True, exist_ok=True)
            _build(package, target, path)
        except OSError as error:
            raise ConfigurationError(f"the cache {directory} cannot be written: {error.strerror or error}") from error
    return Bundle(path, sha256_file(path)[:16], path.stat().st_size)


def _build(package: RuntimePackage, target: WheelTarget, path: Path) -> None:
    with TemporaryDirectory(prefix=".building-", dir=path.parent) as temporary:
        site = Path(temporary) / "site"
        _install(package, target, site)
        _prune(site)
        files = {str(file.relative_to(site)): file for file in sorted(site.rglob("*")) if file.is_file()}
        for name in files:
            check_name(name)
        sums = {name: sha256_file(file) for name, file in files.items()}
        partial = Path(temporary) / "bundle.tar"
        with partial.open("wb") as archive:
            for chunk in tar_stream(files, sums):
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
