"""The run directory: the one place that knows what its files are called."""

from __future__ import annotations

import contextlib
import datetime
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel

from edgekd.errors import BuildError, ConfigurationError
from edgekd.records import Record, Report
from edgekd.store import stages
from edgekd.store.atomic import (
    PARTIAL_MARK,
    link_atomically,
    output_error,
    sync_directory,
    sync_file,
    write_text,
    writing,
)
from edgekd.store.hashing import hash_file
from edgekd.store.lock import exclusive
from edgekd.store.places import IDENTITY_FILE, require_free, unused_path
from edgekd.store.reading import read_record

R = TypeVar("R", bound=BaseModel)
Clock = Callable[[], datetime.datetime]

RUNS = Path("runs")
_LATEST = "latest"
_LOCK = ".lock"
_WORK_PREFIX = ".work-"
_STAGE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


def utc_now() -> datetime.datetime:
    """The time now, in UTC: the clock a pipeline uses outside its tests."""
    return datetime.datetime.now(datetime.UTC)


class RunIdentity(Record):
    """What marks a directory as a run: for which task and profile, and when it was begun."""

    schema_version: Literal[1] = 1
    task: str
    profile: str
    created_utc: str


class RunDirectory:
    """One run's files. Every write is atomic, and one that fails leaves what stood there before.

    Paths are given even where no file stands yet; `open` and `create` are the ways to get one.
    """

    def __init__(self, path: Path, identity: RunIdentity, *, resumed: bool = False) -> None:
        self.path = path
        self.identity = identity
        self.resumed = resumed
        self._previous_latest: str | None = None
        self._latest: Path | None = None
        self._created = False
        self._made_folder = False

    # --- where things are ---

    @property
    def report_json(self) -> Path:
        """The latest report."""
        return self.path / "report.json"

    @property
    def reports(self) -> Path:
        """The folder of earlier reports."""
        return self.path / "reports"

    @property
    def report_html(self) -> Path:
        """The latest report, for people."""
        return self.path / "report.html"

    @property
    def recipe_toml(self) -> Path:
        """The resolved recipe: enough to repeat the run."""
        return self.path / "recipe.toml"

    @property
    def test_inputs(self) -> Path:
        """The test inputs (float NCHW) and labels that go to the board."""
        return self.path / "test_inputs.npz"

    @property
    def logs(self) -> Path:
        """The folder of logs."""
        return self.path / "logs"

    def student(self, file_format: Literal["tflite", "onnx"], *, fp32: bool = False) -> Path:
        """The int8 student in that format, or its fp32 twin."""
        return self.path / f"student{'_fp32' if fp32 else ''}.{file_format}"

    def checkpoint(self, stage: str) -> Path:
        """The weights (torch) of the model that a stage trained."""
        return self._stage_file(stage).with_suffix(".pt")

    def _stage_file(self, stage: str) -> Path:
        if not _STAGE_NAME.fullmatch(stage):
            raise ValueError(f"stage name {stage!r}: lower-case letters, digits, - and _ only")
        return self.path / "stages" / f"{stage}.json"

    # --- making and opening ---

    @classmethod
    def create(
        cls,
        out: Path | None,
        task: str,
        profile: str,
        clock: Clock = utc_now,
        *,
        resume: bool = False,
        runs: Path = RUNS,
    ) -> RunDirectory:
        """Make a run directory, or with `resume` go on in the one that is there.

        Args:
            out: where; None makes `<runs>/<utc>-<task>-<profile>/` and points `<runs>/latest` at it.
            task: the task's name, or its file's path.
            profile: the device profile's name.
            clock: gives the time now, in UTC.
            resume: go on in `out`, or in the latest run where `out` is None; where there is none, begin one.
                The result's `resumed` tells which it was.
            runs: the folder of runs that have no `out`.

        Raises:
            ConfigurationError: `out` is taken, the run to resume is of another task or profile, or the place
                cannot be written.
        """
        now = clock().astimezone(datetime.UTC)
        identity = RunIdentity(task=task, profile=profile, created_utc=now.isoformat(timespec="seconds"))
        existing = out if out is not None else runs / _LATEST
        if resume and (existing / IDENTITY_FILE).is_file():
            return cls._resume(existing, identity)
        if out is not None:
            require_free(out)
            return cls._make(out, identity)
        run = cls._make(unused_path(runs, now, task, profile), identity)
        run._latest = runs / _LATEST
        run._previous_latest = str(run._latest.readlink()) if run._latest.is_symlink() else None
        link_atomically(run._latest, run.path.name)
        return run

    @classmethod
    def _make(cls, path: Path, identity: RunIdentity) -> RunDirectory:
        existed = path.is_dir()
        try:
            path.mkdir(parents=True, exist_ok=True)
            write_text(path / IDENTITY_FILE, identity.model_dump_json(indent=2) + "\n")
        except OSError as error:
            raise output_error(path, error) from error
        except ConfigurationError:
            if not existed:
                shutil.rmtree(path, ignore_errors=True)
            raise
        run = cls(path, identity)
        run._created, run._made_folder = True, not existed
        return run

    @classmethod
    def _resume(cls, path: Path, wanted: RunIdentity) -> RunDirectory:
        run = cls.open(path)
        found = run.identity
        if (found.task, found.profile) != (wanted.task, wanted.profile):
            raise ConfigurationError(
                f"cannot resume {run.path}: it is for task '{found.task}' on '{found.profile}', "
                f"not '{wanted.task}' on '{wanted.profile}'. Choose another --out, or leave --resume out"
            )
        run.resumed = True
        return run

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Open a run that is there; `runs/latest` works.

        Raises:
            ConfigurationError: nothing is there, or it is not a run; the message says which file is missing.
        """
        if not path.exists():
            hint = " (its run was removed)" if path.is_symlink() else ""
            raise ConfigurationError(f"run directory {path} does not exist{hint}: `edgekd fit` makes one")
        if not path.is_dir():
            raise ConfigurationError(f"{path} is a file, not a run directory: name the folder that `edgekd fit` made")
        resolved = path.resolve()
        marker = resolved / IDENTITY_FILE
        if not marker.is_file():
            raise ConfigurationError(f"{path} is not a run: {IDENTITY_FILE} is missing in it")
        return cls(resolved, read_record(marker, RunIdentity))

    @contextlib.contextmanager
    def lock(self, who: str) -> Iterator[None]:
        """Be the only writer while the block runs; `who` is what others are told (`edgekd fit`).

        What a killed writer left half-written is cleared away first.

        Raises:
            ConfigurationError: another process writes this run, or it cannot be written.
        """
        with exclusive(self.path / _LOCK, who):
            self._clear_leftovers()
            yield

    def _clear_leftovers(self) -> None:
        for leftover in [*self.path.glob(f".*{PARTIAL_MARK}*"), *self.path.glob(f"*/.*{PARTIAL_MARK}*")]:
            leftover.unlink(missing_ok=True)
        for work in self.path.glob(f"{_WORK_PREFIX}*"):
            shutil.rmtree(work, ignore_errors=True)

    def discard_if_unused(self) -> bool:
        """Remove a run that this object made and that holds no finished stage and no report; tell whether it did.

        For a run that failed before it came to anything, so that bad input leaves nothing behind. `runs/latest`
        goes back to where it pointed.
        """
        if not self._created or self.report_json.exists() or any((self.path / "stages").glob("*.json")):
            return False
        shutil.rmtree(self.path, ignore_errors=True)
        if not self._made_folder:
            self.path.mkdir(exist_ok=True)
        if self._latest is not None and self._latest.is_symlink() and str(self._latest.readlink()) == self.path.name:
            if self._previous_latest is None:
                self._latest.unlink()
            else:
                link_atomically(self._latest, self._previous_latest)
        return True

    # --- writing files ---

    @contextlib.contextmanager
    def work(self, stage: str) -> Iterator[Path]:
        """A folder for a stage's intermediate files, on the run's own file system; removed at the end.

        Raises:
            ConfigurationError: it cannot be made.
        """
        self._stage_file(stage)
        folder = self.path / f"{_WORK_PREFIX}{stage}"
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        except OSError as error:
            raise output_error(folder, error) from error
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def adopt(self, source: Path, target: Path) -> Path:
        """Move a finished file out of a `work` folder to its place `target` in the run, atomically.

        Raises:
            ConfigurationError: it cannot be written there.
        """
        self._relative(target)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            sync_file(source)
            source.replace(target)
            sync_directory(target.parent)
        except OSError as error:
            raise output_error(target, error) from error
        return target

    @contextlib.contextmanager
    def writing(self, target: Path) -> Iterator[Path]:
        """Give a temporary path that becomes `target` when the block ends well; raises as `atomic.writing`."""
        self._relative(target)
        with writing(target) as temporary:
            yield temporary

    def write_recipe(self, toml: str) -> None:
        """Write `recipe.toml`."""
        write_text(self.recipe_toml, toml)

    def write_html(self, page: str) -> None:
        """Write `report.html`."""
        write_text(self.report_html, page)

    def _relative(self, path: Path) -> str:
        try:
            return str(path.resolve().relative_to(self.path.resolve()))
        except ValueError as error:
            raise ValueError(f"{path} lies outside the run {self.path}") from error

    # --- stages ---

    def finished(self, stage: str, input_hash: str, record_type: type[R]) -> R | None:
        """The record of a stage that need not run again, or None.

        None where the stage has not finished, its inputs were others, or a file it made is gone or changed.
        """
        return stages.finished(self.path, self._stage_file(stage), input_hash, record_type)

    def finish(self, stage: str, input_hash: str, record: BaseModel, files: Iterable[Path] = ()) -> None:
        """Keep a stage's record, the hash of its inputs and those of the files it made in this run.

        Raises:
            ConfigurationError: one of the files is missing, or the record cannot be written.
            ValueError: a file lies outside the run.
        """
        hashes = {self._relative(path): hash_file(path) for path in files}
        stages.finish(self._stage_file(stage), input_hash, record, hashes)

    def take_stages(self, other: RunDirectory, prefixes: tuple[str, ...]) -> None:
        """Copy another run's finished stages whose names begin so, where this run has none of the name.

        A stage that was copied counts only where the hash of its inputs is the one that is wanted.
        """
        for source in sorted((other.path / "stages").glob("*")):
            target = self.path / "stages" / source.name
            if source.name.startswith(prefixes) and source.is_file() and not target.exists():
                with self.writing(target) as temporary:
                    shutil.copyfile(source, temporary)

    # --- reports and artifacts ---

    def read_report(self) -> Report:
        """The latest report.

        Raises:
            ConfigurationError: there is none, because the run did not finish, or it cannot be read.
        """
        if not self.report_json.is_file():
            raise ConfigurationError(
                f"{self.path} has no {self.report_json.name}: its run did not finish; "
                f"`edgekd fit --resume --out {self.path}` goes on with it"
            )
        return read_record(self.report_json, Report)

    def write_report(self, report: Report) -> None:
        """Write `report.json`; the report that stood there is kept in `reports/`, numbered from 0001.

        Raises:
            ConfigurationError: it cannot be written; the earlier report then still stands.
        """
        if self.report_json.is_file():
            self._keep_earlier_report()
        write_text(self.report_json, report.model_dump_json(indent=2) + "\n")

    def _keep_earlier_report(self) -> None:
        try:
            self.reports.mkdir(exist_ok=True)
            taken = [int(path.name[:4]) for path in self.reports.glob("[0-9][0-9][0-9][0-9]-*.json")]
            written = datetime.datetime.fromtimestamp(self.report_json.stat().st_mtime, datetime.UTC)
            kept = self.reports / f"{max(taken, default=0) + 1:04d}-{written:%Y%m%dT%H%M%SZ}.json"
            # A copy, not a move: at no moment is the run without its report.json.
            with writing(kept) as temporary:
                shutil.copyfile(self.report_json, temporary)
        except OSError as error:
            raise output_error(self.reports, error) from error

    def verify_artifacts(self, report: Report) -> None:
        """Check that every artifact of the report is there with the bytes that the report speaks of.

        Raises:
            ConfigurationError: a file is missing.
            BuildError: a file's sha256 is another, or its path leads out of the run.
        """
        for artifact in report.artifacts:
            path = self.path / artifact.path
            if not path.resolve().is_relative_to(self.path.resolve()):
                raise BuildError(f"{self.report_json}: artifact path {artifact.path!r} leads out of the run")
            if not path.is_file():
                raise ConfigurationError(f"{path} is missing, but the report names it: run `edgekd fit --resume`")
            found = hash_file(path)
            if found != artifact.sha256:
                raise BuildError(
                    f"{path} is not the file that was built: sha256 {found}, but the report has {artifact.sha256}. "
                    "It was changed or cut short; build it again with `edgekd fit --resume`"
                )
