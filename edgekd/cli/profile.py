"""`edgekd profile`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from edgekd.errors import ConfigurationError

app = typer.Typer(
    no_args_is_help=True, help="The boards edgekd knows, and your own.\n\nExample: edgekd profile show rpi4"
)


@app.command("list")
def list_command(as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False) -> None:
    """List the shipped profiles with their aliases and default budgets.

    Example:
        edgekd profile list
    """
    from edgekd.load import load_profile, shipped_profiles

    profiles = [load_profile(path) for path in shipped_profiles()]
    if as_json:
        rows = [
            {
                "name": profile.name,
                "title": profile.title,
                "aliases": profile.aliases,
                "budget": profile.budget.constraints(),
            }
            for profile in profiles
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table("Profile", "Board", "Default budget", "Aliases", box=None, pad_edge=False)
    for profile in profiles:
        budget = ", ".join(f"{name} {limit:g}" for name, limit in profile.budget.constraints().items())
        table.add_row(profile.name, profile.title, budget, ", ".join(profile.aliases))
    Console().print(table)


@app.command("show")
def show_command(
    name: Annotated[str, typer.Argument(help="A profile's name, alias or path.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Show a profile: every value with its source.

    Examples:
        edgekd profile show rpi4

        edgekd profile show ./my_board.toml --json
    """
    from edgekd.load import load_profile

    profile = load_profile(name)
    if as_json:
        typer.echo(profile.model_dump_json(indent=2))
        return
    table = Table("Value", "", "Source", box=None, pad_edge=False, title=profile.title, title_justify="left")
    for path, value, source in _rows("", profile.model_dump(mode="json", exclude={"title"})):
        table.add_row(path, value, source)
    Console().print(table)


@app.command("check")
def check_command(
    file: Annotated[Path, typer.Argument(help="A profile of your own (TOML).")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Check a profile file: every error in it at once. Exit code 3 where there is one.

    Example:
        edgekd profile check my_board.toml
    """
    from edgekd.load import check_profile_file

    problems = check_profile_file(file)
    if as_json:
        typer.echo(json.dumps({"file": str(file), "valid": not problems, "problems": problems}, indent=2))
        raise typer.Exit(ConfigurationError.exit_code if problems else 0)
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise ConfigurationError(f"{file} has {len(problems)} error{'s'[: len(problems) != 1]}:\n{listed}")
    typer.echo(f"{file}: valid")


def _rows(prefix: str, value: Any) -> list[tuple[str, str, str]]:
    """A profile's values as (dotted path, value, source) rows."""
    if isinstance(value, dict):
        if set(value) == {"value", "source"}:
            return [(prefix, _text(value["value"]), str(value["source"]))]
        source = str(value.get("source", ""))
        rows: list[tuple[str, str, str]] = []
        for key, item in value.items():
            if key != "source" and item is not None:
                rows += _rows(f"{prefix}.{key}" if prefix else key, item)
        return [(path, text, found or source) for path, text, found in rows]
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return [row for index, item in enumerate(value) for row in _rows(f"{prefix}[{index}]", item)]
    return [(prefix, _text(value), "")]


def _text(value: Any) -> str:
    return ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)
