"""What a record refused in a TOML file, said for people: place, line, value, what is allowed, nearest known key."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from edgekd.core.profile_names import nearest

Location = tuple[int | str, ...]
UNITS = {"ms": "ms", "mhz": "MHz", "mib": "MiB", "kib": "KiB", "mj": "mJ", "w": "W"}
_TABLE = re.compile(r"^\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(r"""^\s*([A-Za-z0-9_\-."']+)\s*=""")


@dataclass(frozen=True, slots=True)
class Problem:
    """One error of a file. `place` is a dotted key, empty for the file as a whole; `line` counts from 1."""

    place: str
    line: int | None
    message: str

    def line_of_text(self, file_name: str) -> str:
        """The problem on one line."""
        where = file_name if self.line is None else f"{file_name}:{self.line}"
        return f"{where}: {self.place}: {self.message}" if self.place else f"{where}: {self.message}"


def describe(error: ValidationError, record_type: type[BaseModel], text: str) -> list[Problem]:
    """Every error in `error`, which came from validating the TOML `text` as `record_type`, in the file's order."""
    lines = dict(_lines_of_keys(text))
    problems = []
    for detail in error.errors(include_url=False):
        location = tuple(part for part in detail["loc"] if not str(part).startswith(("function-", "constrained-")))
        place = _without_tags(record_type, location)
        problems.append(Problem(_dotted(place), _line(lines, place), _message(detail, location, record_type)))
    return sorted(problems, key=lambda problem: problem.line or 0)


def _message(detail: Any, location: Location, record_type: type[BaseModel]) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        key, known = str(location[-1]), sorted(_keys_allowed(record_type, location[:-1]))
        suggestion = nearest(key, known) or _completed(key, known)
        if suggestion:
            return f"unknown key; did you mean {suggestion}?"
        return f"unknown key; allowed here: {', '.join(known)}"
    if kind == "missing":
        return "is missing"
    if kind == "union_tag_not_found":
        return f"has no key {context['discriminator']}"
    if kind == "union_tag_invalid":
        known = [tag.strip("'") for tag in context["expected_tags"].split(", ")]
        suggestion = nearest(context["tag"], known)
        hint = f"did you mean {suggestion}? " if suggestion else ""
        name = context["discriminator"].strip("'")
        return f"there is no {name} {context['tag']!r}: {hint}there are {', '.join(known)}"
    if kind == "value_error":
        return f"{context['error']}"
    if kind in ("literal_error", "enum"):
        known = re.findall(r"'([^']*)'", context["expected"])
        suggestion = nearest(value, known) if isinstance(value, str) else None
        hint = f"; did you mean {suggestion}?" if suggestion else ""
        return f"is {value!r}, must be {context['expected']}{hint}"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        keys = sorted(_keys_allowed(record_type, location))
        return f"is {_shown(value)}, must be a table" + (f" with the keys {', '.join(keys)}" if keys else "")
    rule = detail["msg"].removeprefix("Input should be ").removeprefix("Input should ")
    return f"is {_shown(value)}, must be {rule}{_unit(location)}"


def _completed(start: str, known: Iterable[str]) -> str | None:
    """The one key that goes on from what was written, as `self_distillation` from `self`."""
    found = [key for key in known if key.startswith(f"{start}_")]
    return found[0] if len(found) == 1 else None


def _unit(location: Location) -> str:
    """The unit that the key's ending names, since a value out of bounds is most often one in another unit."""
    for part in reversed(location):
        if isinstance(part, str) and part.rpartition("_")[2] in UNITS:
            return f" {UNITS[part.rpartition('_')[2]]}"
    return ""


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _dotted(location: Location) -> str:
    out = ""
    for part in location:
        out += f"[{part}]" if isinstance(part, int) else (f".{part}" if out else part)
    return out


def _keys_allowed(record_type: type[BaseModel], location: Location) -> set[str]:
    annotation: Any = record_type
    for part in location:
        annotation = _step(annotation, part)
    return {name for model in _models(annotation) for name in model.model_fields}


def _step(annotation: Any, part: int | str) -> Any:
    """The annotation one step down: a field of a model, a member of a tagged union, an element, a dict's value."""
    tagged = _tagged(annotation, part)
    if tagged is not None:
        return tagged
    for model in _models(annotation):
        if part in model.model_fields:
            return model.model_fields[str(part)].annotation
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is tuple and isinstance(part, int) and arguments:
        return arguments[0]
    if origin is dict and len(arguments) == 2:
        return arguments[1]
    return None


def _tagged(annotation: Any, part: int | str) -> type[BaseModel] | None:
    """The member of a union told apart by `kind` that `part` names, or None: pydantic puts the tag into locations."""
    models = list(_models(annotation))
    if len(models) > 1:
        for model in models:
            if "kind" in model.model_fields and model.model_fields["kind"].default == part:
                return model
    return None


def _without_tags(record_type: type[BaseModel], location: Location) -> Location:
    """A location as the file's author knows it, without the tags of unions."""
    annotation: Any = record_type
    kept: Location = ()
    for part in location:
        kept = kept if _tagged(annotation, part) is not None else (*kept, part)
        annotation = _step(annotation, part)
    return kept


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    origin = typing.get_origin(annotation)
    if isinstance(annotation, type) and origin is None and issubclass(annotation, BaseModel):
        yield annotation
    elif origin is typing.Annotated or origin is typing.Union or origin is types.UnionType:
        for argument in typing.get_args(annotation):
            yield from _models(argument)


def _line(lines: dict[Location, int], location: Location) -> int | None:
    """The line of the location, or of the nearest table around it (a missing key has no line of its own)."""
    for length in range(len(location), 0, -1):
        if location[:length] in lines:
            return lines[location[:length]]
    return None


def _lines_of_keys(text: str) -> Iterator[tuple[Location, int]]:
    """Each key and table header with its line. Keys inside inline tables share the line of the table."""
    table: Location = ()
    counts: dict[Location, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        header = _TABLE.match(line)
        if header:
            table = _resolve(_parts(header[2]), counts, opens_element=header[1] == "[[")
            yield table, number
        elif key := _KEY.match(line):
            yield (*table, *_parts(key[1])), number


def _resolve(parts: Location, counts: dict[Location, int], opens_element: bool) -> Location:
    """A header's location with the indices of the arrays of tables that it passes through."""
    resolved: Location = ()
    for position, part in enumerate(parts):
        resolved = (*resolved, part)
        last = position == len(parts) - 1
        if last and opens_element:
            counts[resolved] = counts.get(resolved, -1) + 1
        if resolved in counts:
            resolved = (*resolved, counts[resolved])
    return resolved


def _parts(dotted: str) -> Location:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))
