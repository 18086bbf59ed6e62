"""`edgekd objectives`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from edgekd.records.objectives import OBJECTIVE_RECORDS, Objective

BOUNDS = (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="), ("exclusiveMaximum", "<"))


def objectives_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """List the teaching signals: formula, paper, when to use, and parameters with their ranges.

    Examples:
        edgekd objectives

        edgekd objectives --json | jq '.[] | {kind, use}'
    """
    described = [_described(record) for record in OBJECTIVE_RECORDS]
    if as_json:
        typer.echo(json.dumps(described, indent=2))
        return
    for entry in described:
        typer.echo(entry["kind"])
        for name in ("formula", "paper", "use"):
            typer.echo(f"    {name + ':':9}{entry[name]}")
        for parameter in entry["parameters"]:
            typer.echo(f"    {parameter['name']} = {json.dumps(parameter['default'])}  {_said(parameter)}")
        typer.echo("")


def _described(record: type[Objective]) -> dict[str, Any]:
    schema = record.model_json_schema()["properties"]
    return {
        "kind": record.model_fields["kind"].default,
        "formula": record.formula,
        "paper": record.paper,
        "use": record.use,
        "needs_teacher": record.needs_teacher,
        "needs_features": record.needs_features,
        "parameters": [_parameter(name, schema[name]) for name in record.model_fields if name != "kind"],
    }


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
