"""Looks a board over before anything is sent to it: each finding passes, warns or fails, and says what to do."""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.board.connection.session import Session
from edgekd.board.examination.survey import Survey, take_survey
from edgekd.board.lock import lock_holder
from edgekd.board.measuring.condition import PLAIN, identity, is_emulated, item, jetson_items, model_item
from edgekd.board.measuring.facts import matches_profile
from edgekd.board.provisioning.bundle import WheelTarget, find_bundle, runtime_package
from edgekd.board.provisioning.bundle_store import imported_version
from edgekd.board.provisioning.userland import LEAST_PYTHON, pythons, wheel_target
from edgekd.core.board_output import printable
from edgekd.errors import BoardError
from edgekd.records import DeviceProfile, RuntimeName
from edgekd.records.board import BoardCheck, CheckItem


def check_board(session: Session, profile: DeviceProfile | None, runtime: RuntimeName) -> BoardCheck:
    """Everything that decides whether and how well edgekd can deploy there. Leaves nothing behind.

    Args:
        session: to the board.
        profile: the kind that the board should be of, or None.
        runtime: what would be deployed.

    Raises:
        BoardError: the board does not answer.
    """
    survey = take_survey(session)
    matched, why = matches_profile(identity(survey), session, profile) if profile else (None, "")
    items = [
        model_item(survey, profile, matched, why),
        *jetson_items(survey, profile),
        *(check(survey) for check in PLAIN),
        _write_access(session, survey),
        _lock(session),
        *_python_and_runtime(session, runtime),
    ]
    return BoardCheck(
        board=session.name,
        profile=profile.name if profile else None,
        matches_profile=matched,
        emulated=is_emulated(survey),
        deployable=not any(found.status == "fail" for found in items),
        items=tuple(items),
    )


def _write_access(session: Session, survey: Survey) -> CheckItem:
    if "writable" in survey.lines("write"):
        return item("write access", "pass", session.home)
    said = next((line for line in survey.lines("write")), "refused")
    return item(
        "write access",
        "fail",
        f"{session.home} cannot be written: {said}",
        "fix its owner or its disk, or set EDGEKD_BOARD_HOME to a directory that the login may write to",
    )


def _lock(session: Session) -> CheckItem:
    holder = lock_holder(session)
    if holder is None:
        return item("lock", "pass", "free")
    return item(
        "lock", "fail", f"held by {holder}", "wait until it ends; a lock whose owner is gone is broken by itself"
    )


@dataclass(frozen=True, slots=True)
class _Found:
    python: str
    version: tuple[int, int]


def _python_and_runtime(session: Session, runtime: RuntimeName) -> list[CheckItem]:
    found = pythons(session)
    shown = ", ".join(f"{printable(path, 100)} ({major}.{minor})" for path, (major, minor) in dict(found).items())
    usable = next((_Found(path, version) for path, version in found if version >= LEAST_PYTHON), None)
    if usable is None:
        advice = "install Python 3.9 or newer there (on Debian: sudo apt install python3); pip is not needed"
        return [item("python", "fail", shown or "none", advice)]
    items = [item("python", "pass", shown)]
    own = []
    for name, architecture in (("tflite", "aarch64"), ("tflite", "armv7l"), ("onnx", "aarch64")):
        package = runtime_package("tflite" if name == "tflite" else "onnx", architecture)
        version = imported_version(session, usable.python, "", package)
        if version:
            own.append((name, f"{package.package} {version}"))
    items.append(item("runtimes", "pass", ", ".join(text for _, text in own) or "none of its own"))
    has = [text for name, text in own if name == runtime]
    return [*items, _to_install(session, usable, runtime, has)]


def _to_install(session: Session, usable: _Found, runtime: RuntimeName, has: list[str]) -> CheckItem:
    if has:
        return item("to install", "pass", f"nothing: {has[0]} is there (if it is too old, a bundle is sent beside it)")
    try:
        target = wheel_target(session, usable.python, usable.version)
        package = runtime_package(runtime, target.architecture)
    except BoardError as error:
        return item("to install", "fail", str(error), "")
    return _bundle_item(runtime, target, package.package)


def _bundle_item(runtime: RuntimeName, target: WheelTarget, package: str) -> CheckItem:
    bundle = find_bundle(runtime, target)
    if bundle is not None:
        found = f"{package} for {target}: {bundle.size_bytes / 2**20:.0f} MiB from this machine's cache"
        return item("to install", "pass", found)
    found = f"{package} for {target}: to be downloaded here at the first deploy"
    python = f"{target.python[0]}.{target.python[1]}"
    command = f"edgekd board bundle --platform {target.platform_tags()[0]} --python {python} --runtime {runtime}"
    return item("to install", "pass", f"{found}; to have it before: {command}")
