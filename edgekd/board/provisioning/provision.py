"""Gives a board the runtime: its own where that will do, else a bundle made here and sent in one stream."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from packaging.version import InvalidVersion, Version

from edgekd.board.connection.session import Session
from edgekd.board.measuring.tensorrt import Trtexec, find_trtexec
from edgekd.board.provisioning.bundle import RuntimePackage, cached_bundle, runtime_package
from edgekd.board.provisioning.bundle_store import BundleStore, ImportFailedError, imported_version
from edgekd.board.provisioning.userland import find_python, wheel_target
from edgekd.errors import BoardError
from edgekd.records import RuntimeName
from edgekd.records.base import MeasuredRuntime

logger = logging.getLogger(__name__)

_IS_JETSON = '[ -e /etc/nv_tegra_release ] || grep -qs "NVIDIA Jetson" "$1/firmware/devicetree/base/model"'


@dataclass(frozen=True, slots=True)
class RuntimeEnvironment:
    """What runs the agent: a Python there, and the directory of the bundle (None: the Python has the runtime).

    `note` says what a reader of the figures must know of how it came about; equality ignores it.
    """

    python: str
    site: str | None
    runtime: MeasuredRuntime
    runtime_package: str
    runtime_version: str
    note: str = field(default="", compare=False)
    trtexec: Trtexec | None = None


def provision(
    session: Session, runtime: MeasuredRuntime, progress: Callable[[str], None] | None = None
) -> RuntimeEnvironment:
    """Make sure that a Python on the board imports the runtime, sending a bundle only where it must.

    The board needs Python 3.9 or newer, but neither pip nor the internet. A bundle is unpacked in a temporary
    directory and imported in a throw-away process before it takes its name; one that cannot be imported leaves the
    one before it in use. On a Jetson an onnxruntime that is installed is used whatever its version, because no wheel
    of a registry has its GPU provider. TensorRT is the board's own or none.

    Raises:
        BoardError: no such Python, no wheels for this board, the import fails or crashes there, or the link broke.
    """
    say = progress or (lambda message: None)
    python, version = find_python(session)
    if runtime == "tensorrt":
        trtexec = find_trtexec(session)
        return RuntimeEnvironment(python, None, runtime, "trtexec", trtexec.version, trtexec=trtexec)
    for package in _packages(runtime):
        own = imported_version(session, python, "", package)
        if own is not None and (_new_enough(own, package) or _is_kept(session, runtime)):
            logger.info("%s: %s has %s %s", session.name, python, package.package, own)
            return RuntimeEnvironment(python, None, runtime, package.package, own)
    target = wheel_target(session, python, version)
    package = runtime_package(runtime, target.architecture)
    store = BundleStore(session, python, runtime, package)
    say(f"resolving {package.package} for {target}")
    bundle = cached_bundle(runtime, target)
    found = store.version_of(bundle.identity)
    note = ""
    identity = bundle.identity
    if found is None:
        say(f"sending {package.package} ({bundle.size_bytes / 2**20:.0f} MiB)")
        try:
            found = store.install(bundle, say)
        except ImportFailedError as error:
            previous = store.current()
            found = store.version_of(previous) if previous else None
            if found is None or previous is None:
                raise BoardError(str(error)) from error
            identity = previous
            note = (
                f"the new {package.package} cannot be imported there, so the one before it ({found}) was used: {error}"
            )
            logger.warning("%s", note)
    store.use(identity)
    return RuntimeEnvironment(python, store.site(identity), runtime, package.package, found, note)


def _packages(runtime: RuntimeName) -> list[RuntimePackage]:
    """The packages by which a board's own Python may already have a runtime."""
    kinds = ("aarch64", "armv7l") if runtime == "tflite" else ("aarch64",)
    return [runtime_package(runtime, architecture) for architecture in kinds]


def _is_kept(session: Session, runtime: RuntimeName) -> bool:
    return runtime == "onnx" and session.shell(_IS_JETSON, session.sysfs, check=False).succeeded


def _new_enough(version: str, package: RuntimePackage) -> bool:
    try:
        return Version(version) >= Version(package.least_version)
    except InvalidVersion:
        return False
