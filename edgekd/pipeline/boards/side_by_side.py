"""`edgekd measure A --compare B`: two model files, or runs, in turn on one board."""

from __future__ import annotations

from pathlib import Path

from edgekd.board.connection.open import open_session
from edgekd.board.container import within
from edgekd.board.lock import BoardLock
from edgekd.board.measuring.compare import Contender, compare
from edgekd.board.measuring.measure import BoardModel
from edgekd.board.measuring.timed_pass import TimedPass
from edgekd.board.provisioning.prepare import prepare
from edgekd.core.evidence import disturbance
from edgekd.errors import ConfigurationError
from edgekd.pipeline.boards.deploy import deployed_artifact, runtime_of
from edgekd.pipeline.boards.measuring import BoardOptions, plan_for
from edgekd.pipeline.boards.units import DEFAULT_THREADS, require_inputs
from edgekd.pipeline.console import Progress
from edgekd.records import Contention
from edgekd.records.base import MeasuredRuntime
from edgekd.records.comparison import Comparison
from edgekd.store import RunDirectory, hash_file


def compare_files(
    first: Path, second: Path, options: BoardOptions, inputs: Path | None, *, progress: Progress
) -> Comparison:
    """Measure two files in turn on one board. A run directory stands for its int8 student.

    Raises:
        ConfigurationError: a file or run is missing, or an option cannot be had with a comparison.
        BuildError: a runtime refuses its file.
        BoardError: the board cannot be reached, refuses, or a command there failed.
    """
    if options.more_boards:
        raise ConfigurationError("--compare measures on one board: give --board once")
    if options.runtime == "tensorrt" or options.measuring.rate_hz is not None:
        raise ConfigurationError("--compare cannot be had with --runtime tensorrt, nor with --rate-hz")
    require_inputs(inputs)
    threads = options.threads or DEFAULT_THREADS
    models = [_model(path, options.runtime) for path in (first, second)]
    hashes = [hash_file(model) for model, _ in models]
    if hashes[0] == hashes[1]:
        raise ConfigurationError(f"{models[0][0]} and {models[1][0]} are the same file: there is nothing to compare")
    plans = [plan_for(options.plan, runtime, threads, options.measuring) for _, runtime in models]
    progress.stage("connect", options.board)
    session = open_session(options.board, identity=options.identity, accept_new_host_key=options.accept_new_host_key)
    with (
        session,
        BoardLock(session, "edgekd measure --compare") as lock,
        within(session, options.measuring.container, progress.update) as place,
    ):
        sides, emulated = [], False
        for (model, runtime), sha256, plan in zip(models, hashes, plans, strict=True):
            files = {model.name: model, **({inputs.name: inputs} if inputs is not None else {})}
            key = f"measure-{sha256[:16]}"
            prepared = prepare(place, lock, runtime, files, key, progress.stage, progress.update)
            remote = BoardModel(f"{prepared.folder}/{model.name}", sha256, str(model))
            fed = f"{prepared.folder}/{inputs.name}" if inputs is not None else None
            sides.append(Contender(prepared.environment, remote, plan, fed, TimedPass()))
            emulated = emulated or prepared.emulated
        progress.stage("compare", f"{first} beside {second}, plan {plans[0].name}")
        found = compare(place, sides[0], sides[1], progress.update, _disturbed if _judged(options) else None)
    if emulated:
        note = "the board is emulated: which is faster there says nothing of a real one"
        found = found.model_copy(update={"notes": (*found.notes, note)})
    return found


def _judged(options: BoardOptions) -> bool:
    return options.measuring.background == "none"


def _disturbed(contention: Contention) -> bool:
    # A median stands where fewer than half of the runs were interrupted.
    return bool(disturbance("latency_p50_ms", contention))


def _model(path: Path, runtime: MeasuredRuntime | None) -> tuple[Path, MeasuredRuntime]:
    if not path.is_dir():
        return path, runtime_of(path, None)
    run = RunDirectory.open(path)
    report = run.read_report()
    run.verify_artifacts(report)
    chosen = runtime or "tflite"
    return run.path / deployed_artifact(run, report, chosen, None).path, chosen
