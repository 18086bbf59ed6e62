"""`edgekd board`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgekd.cli.board_options import AcceptKey, AsJson, Identity
from edgekd.cli.console import ConsoleProgress
from edgekd.errors import BoardError

app = typer.Typer(
    no_args_is_help=True,
    help="Boards: look one over, prepare one without a network, see and remove what edgekd put there.\n\n"
    "Example: edgekd board check pi@raspberrypi.local --profile rpi4",
)

Host = Annotated[str, typer.Argument(metavar="local|[USER@]HOST[:PORT]", help="`local` is this machine.")]
Runtime = Annotated[Literal["tflite", "onnx"] | None, typer.Option(help="Default: the profile's.", show_default=False)]
_MARKS = {"pass": "[green]pass[/green]", "warn": "[yellow]warn[/yellow]", "fail": "[bold red]fail[/bold red]"}


@app.command("check")
def check_command(
    host: Host,
    profile: Annotated[
        str | None, typer.Option(help="The kind it should be of (name or path).", show_default=False)
    ] = None,
    runtime: Runtime = None,
    identity: Identity = None,
    accept_new_host_key: AcceptKey = False,
    as_json: AsJson = False,
) -> None:
    """Look a board over before anything is sent: what works, what is lost, what to do. Leaves nothing there.

    Exit code 4 where deploying cannot work; warnings leave it 0.

    Examples:
        edgekd board check pi@raspberrypi.local --profile rpi4

        edgekd board check local --json
    """
    from edgekd.pipeline.boards.board import Reach, check

    with ConsoleProgress() as progress:
        found = check(Reach(host, identity, accept_new_host_key), profile, runtime, progress)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        table = Table("", "", "", box=None, pad_edge=False, show_header=False)
        for item in found.items:
            advice = f"\n[dim]→ {escape(item.advice)}[/dim]" if item.advice else ""
            table.add_row(_MARKS[item.status], item.name, escape(item.found) + advice)
        console = Console()
        console.print(table)
        console.print("deploying can work" if found.deployable else "[bold red]deploying cannot work[/bold red]")
    raise typer.Exit(0 if found.deployable else BoardError.exit_code)


@app.command("list")
def list_command(
    host: Annotated[
        str | None,
        typer.Argument(
            metavar="[local|[USER@]HOST[:PORT]]", help="List what edgekd has put there.", show_default=False
        ),
    ] = None,
    identity: Identity = None,
    accept_new_host_key: AcceptKey = False,
    as_json: AsJson = False,
) -> None:
    """List the boards that this machine has used; or, of one board, everything that edgekd has put there.

    Without a board nothing is contacted: the list is what was seen when each was last used.

    Examples:
        edgekd board list

        edgekd board list pi@raspberrypi.local
    """
    from edgekd.pipeline.boards.board import Reach, known_boards, storage

    if host is None:
        boards = known_boards()
        if as_json:
            typer.echo(json.dumps([known.model_dump(mode="json") for known in boards], indent=2))
            return
        table = Table("Board", "What it was", "Last used", "By", box=None, pad_edge=False)
        for known in boards:
            table.add_row(escape(known.board), escape(known.description), known.last_used_utc, known.last_command)
        Console().print(table if boards else "no board was used from here yet")
        return
    found = storage(Reach(host, identity, accept_new_host_key))
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
        return
    table = Table("Kind", "Name", "MiB", "", box=None, pad_edge=False)
    for entry in found.stored:
        table.add_row(
            entry.kind, escape(entry.name), f"{entry.size_bytes / 2**20:.1f}", "in use" if entry.in_use else ""
        )
    console = Console()
    console.print(table if found.stored else "edgekd has put nothing there")
    console.print(f"{found.size_bytes / 2**20:.1f} MiB in {escape(found.home)}")
    if found.locked_by:
        console.print(f"locked by {escape(found.locked_by)}")


@app.command("bundle")
def bundle_command(
    platform: Annotated[str, typer.Option(help="Platform tag of PEP 600; `edgekd board check` tells a board's.")],
    python: Annotated[str, typer.Option(help="The board's Python, such as 3.11.")],
    runtime: Annotated[Literal["tflite", "onnx"], typer.Option(help="Which runtime.")] = "tflite",
    out: Annotated[Path | None, typer.Option(help="Copy it to this file as well.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Download and bundle a runtime for boards of a kind, without a board. Deploys from here then need no internet.

    Examples:
        edgekd board bundle --platform manylinux_2_28_aarch64 --python 3.11

        edgekd board bundle --platform manylinux_2_34_armv7l --python 3.11 --out pi32.tar.gz
    """
    from edgekd.pipeline.boards.board import bundle

    with ConsoleProgress() as progress:
        made = bundle(platform, python, runtime, out, progress)
    where = out or made.path
    if as_json:
        row = {"path": str(where), "sha256": made.sha256, "size_bytes": made.size_bytes, "identity": made.identity}
        typer.echo(json.dumps(row, indent=2))
    else:
        typer.echo(f"{where}: {made.size_bytes / 2**20:.1f} MiB, sha256 {made.sha256}")


@app.command("emulate")
def emulate_command(
    profile: Annotated[str, typer.Argument(help="rpi-zero2w, rpi3, rpi4 or rpi5.")],
    fresh: Annotated[bool, typer.Option("--fresh", help="Unpack its system anew.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run an aarch64 board in QEMU, with a real SSH server and no network, until interrupted (Ctrl-C). Needs root.

    For rehearsing: provisioning, which operators a runtime has, bit-exactness, memory. Its latencies are about a
    hundred times too long and are never judged. Needs qemu-user-static, binfmt-support and mmdebstrap of Debian.

    Example:
        sudo edgekd board emulate rpi4
    """
    from edgekd.load import load_profile
    from edgekd.pipeline.boards.board import EmulatedBoard, machine_of

    machine = machine_of(load_profile(profile).name)
    with ConsoleProgress() as progress:
        progress.stage("emulate", f"{machine.model}: {machine.cpu}")
        with EmulatedBoard(machine, fresh=fresh, say=progress.update) as emulated:
            if as_json:
                typer.echo(json.dumps({"board": emulated.board, "identity": str(emulated.identity)}))
            else:
                typer.echo("running; Ctrl-C ends it. From another terminal:")
                options = f"--identity {emulated.identity} --accept-new-host-key"
                typer.echo(f"  edgekd board check {emulated.board} {options}")
                typer.echo(f"  edgekd deploy runs/latest --board {emulated.board} {options}")
            emulated.wait()


@app.command("clean")
def clean_command(
    host: Host,
    identity: Identity = None,
    accept_new_host_key: AcceptKey = False,
    as_json: AsJson = False,
) -> None:
    """Remove everything that edgekd ever put on a board, and nothing else.

    Refused while another edgekd holds the board (exit code 4).

    Example:
        edgekd board clean pi@raspberrypi.local
    """
    from edgekd.pipeline.boards.board import Reach, clean_board

    removed, left = clean_board(Reach(host, identity, accept_new_host_key))
    if as_json:
        typer.echo(json.dumps({"removed": removed.model_dump(mode="json"), "left": left}, indent=2))
        return
    typer.echo(f"{removed.board}: removed {len(removed.stored)} things, {removed.size_bytes / 2**20:.1f} MiB")
    if left:
        typer.echo(f"left in {removed.home}, since edgekd did not put it there: {', '.join(left)}")
