"""TOML to records, and back: every error of a file at once, each with its place, its value and what is allowed."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, TypeVar

import tomlkit
from pydantic import ValidationError

from edgekd.core.profile_names import NOT_SHIPPED, nearest, squash
from edgekd.core.toml_errors import Problem, describe
from edgekd.errors import ConfigurationError
from edgekd.records import DeviceProfile, Recipe, Record

R = TypeVar("R", bound=Record)


def shipped_profiles() -> list[Path]:
    """The profile files that come with edgekd, sorted by name.

    Raises:
        ConfigurationError: none are there, which means a broken installation.
    """
    here = Path(__file__).resolve().parent
    # In a wheel the profiles lie inside the package; in a source checkout, beside it.
    for folder in (here / "device_profiles", here.parent / "device_profiles"):
        found = sorted(folder.glob("*.toml"))
        if found:
            return found
    raise ConfigurationError(f"no device profiles found in or beside {here}: reinstall edgekd")


def load_profile(name_or_path: str | Path) -> DeviceProfile:
    """The profile of a shipped name (or one of its aliases, in any case), or of a file.

    Raises:
        ConfigurationError: no such profile (suggesting the nearest), or everything that is wrong with its file.
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or "/" in text or text.endswith(".toml"):
        return _load(Path(name_or_path).expanduser(), DeviceProfile, "device profile")
    return _load(_shipped_path(text), DeviceProfile, "device profile")


def load_recipe(path: str | Path) -> Recipe:
    """The recipe in a file.

    Raises:
        ConfigurationError: everything that is wrong with the file.
    """
    return _load(Path(path).expanduser(), Recipe, "recipe")


def check_profile_file(path: str | Path) -> list[str]:
    """Everything that is wrong with a profile file, one line a problem; empty where nothing is.

    Raises:
        ConfigurationError: the file cannot be read at all.
    """
    path = Path(path).expanduser()
    text = _read(path, "device profile")
    _, problems = _parse(text, DeviceProfile)
    return [problem.line_of_text(path.name) for problem in problems]


def dump_toml(record: Record) -> str:
    """The record as TOML that loads back to an equal record. Values that are None are left out."""
    return tomlkit.dumps(record.model_dump(mode="json", exclude_none=True))


def _shipped_path(name: str) -> Path:
    wanted = squash(name)
    names: dict[str, Path] = {}
    listed = []
    for path in shipped_profiles():
        listed.append(path.stem)
        for known in (path.stem, *_aliases(path)):
            names.setdefault(known, path)
    for known, path in names.items():
        if squash(known) == wanted:
            return path
    if wanted in NOT_SHIPPED:
        raise ConfigurationError(NOT_SHIPPED[wanted])
    if Path(name).is_file():
        return Path(name)
    suggestion = nearest(name, names)
    hint = f"; did you mean '{names[suggestion].stem}'?" if suggestion else "."
    raise ConfigurationError(
        f"unknown device profile '{name}'{hint} Shipped profiles: {', '.join(listed)}. "
        "For a board of your own, give the path of its .toml file"
    )


def _aliases(path: Path) -> tuple[str, ...]:
    try:
        aliases = tomllib.loads(path.read_text(encoding="utf-8")).get("aliases", [])
    except (OSError, ValueError):
        # A shipped file that someone broke must not hide the others; loading it by its own name says what is wrong.
        return ()
    return tuple(str(alias) for alias in aliases) if isinstance(aliases, list) else ()


def _load(path: Path, record_type: type[R], what: str) -> R:
    record, problems = _parse(_read(path, what), record_type)
    if record is None:
        lines = "\n".join("  " + problem.line_of_text(path.name) for problem in problems)
        count = f"{len(problems)} error{'s' if len(problems) != 1 else ''}"
        raise ConfigurationError(f"{what} {path}: {count}\n{lines}")
    return record


def _read(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigurationError(f"{what} {path}: no such file") from None
    except IsADirectoryError:
        raise ConfigurationError(f"{what} {path}: is a directory; give the .toml file in it") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{what} {path}: not UTF-8 text (byte {error.start}: {error.reason})") from None
    except OSError as error:
        raise ConfigurationError(f"{what} {path}: cannot be read: {error.strerror or error}") from None


def _parse(text: str, record_type: type[R]) -> tuple[R | None, list[Problem]]:
    try:
        data: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return None, [Problem(place="", line=None, message=f"not valid TOML: {error}")]
    try:
        return record_type.model_validate(data), []
    except ValidationError as error:
        return None, describe(error, record_type, text)
