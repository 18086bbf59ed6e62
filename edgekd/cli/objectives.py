"""`edgekd objectives`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from edgekd.records.base import Record
from edgekd.records.objectives import OBJECTIVE_RECORDS, Objective
from edgekd.records.regimes import REGIME_RECORDS, RegimeOptions

BOUNDS = (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="), ("exclusiveMaximum", "<"))


def objectives_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """List the objectives (what is learnt) and the regimes (who teaches whom), with their parameters.

    Each with formula or procedure, paper, when to use it, and the parameters with defaults and ranges.

    Examples:
        edgekd objectives

        edgekd objectives --json | jq '.[] | select(.type == "regime") | {kind, use}'
    """
    described = [*map(_objective, OBJECTIVE_RECORDS), *map(_regime, REGIME_RECORDS)]
    if as_json:
        typer.echo(json.dumps(described, indent=2))
        return
    for entry in described:
        typer.echo(entry["kind"])
        for name in ("type", "formula", "paper", "use", "data", "recipe"):
            if name in entry:
                typer.echo(f"    {name + ':':9}{entry[name]}")
        for parameter in entry["parameters"]:
            default = "(not set)" if parameter["default"] is None else json.dumps(parameter["default"])
            typer.echo(f"    {parameter['name']} = {default}  {_said(parameter)}")
        typer.echo("")


def _objective(record: type[Objective]) -> dict[str, Any]:
    kind = record.model_fields["kind"].default
    return {
        "type": "objective",
        "kind": kind,
        "formula": record.formula,
        "paper": record.paper,
        "use": record.use,
        "recipe": f'[[distill.objectives]] kind = "{kind}"',
        "needs_teacher": record.needs_teacher,
        "needs_features": record.needs_features,
        "parameters": _parameters(record),
    }


def _regime(record: type[RegimeOptions]) -> dict[str, Any]:
    named = f'distill.regime = "{record.regime}"'
    return {
        "type": "regime",
        "kind": record.regime,
        "formula": record.procedure,
        "paper": record.paper,
        "use": record.use,
        "data": record.data,
        "recipe": f"{named}, its parameters in {record.table}" if record.table else named,
        "table": record.table,
        "parameters": _parameters(record),
    }


def _parameters(record: type[Record]) -> list[dict[str, Any]]:
    schema = record.model_json_schema().get("properties", {})
    return [_parameter(name, schema[name]) for name in record.model_fields if name != "kind"]


def _parameter(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    bounded = next((part for part in schema.get("anyOf", ()) if part.get("type") != "null"), schema)
    return {
        "name": name,
        "default": schema.get("default"),
        "range": " and ".join(f"{sign} {bounded[key]:g}" for key, sign in BOUNDS if key in bounded),
        "choices": bounded.get("enum", []),
        "description": schema.get("description", ""),
    }


def _said(parameter: dict[str, Any]) -> str:
    allowed = parameter["range"] or ", ".join(parameter["choices"])
    return f"[{allowed}] {parameter['description']}" if allowed else str(parameter["description"])
