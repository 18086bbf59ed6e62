"""`edgekd schema`."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer


def schema_command(
    record: Annotated[
        Literal["report", "measurement", "profile", "recipe", "budget"], typer.Argument(help="Which record.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="The default: a schema is JSON.")] = True,
) -> None:
    """Print the JSON Schema of a record, for editors and for programs that read edgekd's files.

    Example:
        edgekd schema report > report.schema.json
    """
    from edgekd import records

    types: dict[str, type[records.Record]] = {
        "report": records.Report,
        "measurement": records.Measurement,
        "profile": records.DeviceProfile,
        "recipe": records.Recipe,
        "budget": records.Budget,
    }
    typer.echo(json.dumps(types[record].model_json_schema(), indent=2))
