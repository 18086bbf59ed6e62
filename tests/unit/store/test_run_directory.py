import datetime
import subprocess
import sys
from pathlib import Path

import pytest

from edgekd.errors import BuildError, ConfigurationError
from edgekd.records import Accuracy, Artifact, Budget, Estimate, Report, Verdict
from edgekd.store import RunDirectory, hash_file, hash_inputs, write_bytes, writing

NOW = datetime.datetime(2026, 11, 22, 12, 0, 5, tzinfo=datetime.UTC)


def clock() -> datetime.datetime:
    return NOW


def make(out: Path) -> RunDirectory:
    return RunDirectory.create(out, "watch-gestures", "rpi4", clock)


def estimate(value: float) -> Estimate:
    return Estimate(value=value, low=value - 1, high=value + 1, basis="predicted", source="a test")


def report_of(run: RunDirectory, *artifacts: Artifact, command: str = "edgekd fit") -> Report:
    return Report(
        edgekd_version="0",
        created_utc=NOW.isoformat(),
        command=command,
        profile="rpi4",
        task="watch-gestures",
        seed=0,
        budget=Budget(file_size_kib=10),
        verdicts=(Verdict(constraint="file_size_kib", limit=10, outcome="not_measured"),),
        exit_code=6,
        student=None,
        artifacts=artifacts,
        accuracy=Accuracy(),
        parity=(),
    )


def artifact_of(run: RunDirectory, path: Path) -> Artifact:
    return Artifact(
        path=str(path.relative_to(run.path)),
        format="tflite",
        scheme="wi8_ai8",
        sha256=hash_file(path),
        size_bytes=path.stat().st_size,
    )


class TestPlaces:
    def test_names_the_run_and_points_latest_at_it(self, tmp_path: Path) -> None:
        runs = tmp_path / "runs"
        first = RunDirectory.create(None, "tasks/my task.py", "rpi4", clock, runs=runs)
        assert first.path == runs / "20261122T120005Z-my-task-rpi4"
        second = RunDirectory.create(None, "tasks/my task.py", "rpi4", clock, runs=runs)
        assert second.path != first.path
        assert RunDirectory.open(runs / "latest").path == second.path.resolve()
        assert not (runs / "latest").readlink().is_absolute()

    def test_out_leaves_latest_alone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        make(Path("here"))
        assert not (tmp_path / "runs").exists()

    def test_an_empty_folder_may_be_taken(self, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        assert make(tmp_path / "out").path.is_dir()

    def test_refuses_a_folder_with_other_things_in_it(self, tmp_path: Path) -> None:
        (tmp_path / "precious.txt").write_text("mine")
        with pytest.raises(ConfigurationError, match=r"precious\.txt"):
            make(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]

    def test_a_run_is_taken_only_with_resume(self, tmp_path: Path) -> None:
        make(tmp_path / "out")
        with pytest.raises(ConfigurationError, match="--resume"):
            make(tmp_path / "out")
        assert RunDirectory.create(tmp_path / "out", "watch-gestures", "rpi4", clock, resume=True).resumed

    def test_resume_refuses_another_task_or_profile(self, tmp_path: Path) -> None:
        make(tmp_path / "out")
        with pytest.raises(ConfigurationError, match="rpi5"):
            RunDirectory.create(tmp_path / "out", "watch-gestures", "rpi5", clock, resume=True)

    def test_resume_without_out_takes_the_latest_and_begins_one_where_there_is_none(self, tmp_path: Path) -> None:
        runs = tmp_path / "runs"
        first = RunDirectory.create(None, "a", "b", clock, resume=True, runs=runs)
        assert not first.resumed
        again = RunDirectory.create(None, "a", "b", clock, resume=True, runs=runs)
        assert again.resumed
        assert again.path == first.path.resolve()

    @pytest.mark.parametrize("kind", ["missing", "file", "other folder", "dangling"])
    def test_open_refuses_what_is_no_run(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / "run"
        expected = {"missing": "does not exist", "file": "is a file", "other folder": "run.json", "dangling": "removed"}
        if kind == "file":
            path.write_text("")
        elif kind == "other folder":
            path.mkdir()
        elif kind == "dangling":
            path.symlink_to("gone")
        with pytest.raises(ConfigurationError, match=expected[kind]):
            RunDirectory.open(path)

    def test_latest_that_is_a_real_folder_is_not_destroyed(self, tmp_path: Path) -> None:
        (tmp_path / "latest").mkdir()
        (tmp_path / "latest" / "precious").write_text("")
        with pytest.raises(ConfigurationError, match="not a link"):
            RunDirectory.create(None, "a", "b", clock, runs=tmp_path)
        assert (tmp_path / "latest" / "precious").exists()

    def test_a_run_that_came_to_nothing_is_discarded(self, tmp_path: Path) -> None:
        first = RunDirectory.create(None, "a", "b", clock, runs=tmp_path)
        first.finish("teacher", "0", estimate(1.0))
        second = RunDirectory.create(None, "a", "b", clock, runs=tmp_path)
        assert second.discard_if_unused()
        assert not second.path.exists()
        assert RunDirectory.open(tmp_path / "latest").path == first.path.resolve()
        assert not first.discard_if_unused()
        assert not RunDirectory.open(first.path).discard_if_unused()

    def test_discarding_keeps_the_folder_the_user_made(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        out.mkdir()
        assert make(out).discard_if_unused()
        assert list(out.iterdir()) == []


class TestStages:
    def test_a_finished_stage_is_used_again(self, tmp_path: Path) -> None:
        run = make(tmp_path / "out")
        write_bytes(run.checkpoint("teacher"), b"weights")
        run.finish("teacher", "hash", estimate(2.0), [run.checkpoint("teacher")])
        assert RunDirectory.open(run.path).finished("teacher", "hash", Estimate) == estimate(2.0)

    def test_it_runs_again_when_anything_changed(self, tmp_path: Path) -> None:
        run = make(tmp_path / "out")
        assert run.finished("teacher", "hash", Estimate) is None
        write_bytes(run.checkpoint("teacher"), b"weights")
        run.finish("teacher", "hash", estimate(2.0), [run.checkpoint("teacher")])
        assert run.finished("teacher", "other", Estimate) is None
        assert run.finished("teacher", "hash", Verdict) is None
        run.checkpoint("teacher").write_bytes(b"wEights")
        assert run.finished("teacher", "hash", Estimate) is None
        run.checkpoint("teacher").unlink()
        assert run.finished("teacher", "hash", Estimate) is None

    def test_a_cut_short_record_is_no_result(self, tmp_path: Path) -> None:
        run = make(tmp_path / "out")
        run.finish("teacher", "hash", estimate(2.0))
        stage_file = run.path / "stages" / "teacher.json"
        stage_file.write_bytes(stage_file.read_bytes()[:-20])
        assert run.finished("teacher", "hash", Estimate) is None

    def test_files_outside_the_run_are_refused(self, tmp_path: Path) -> None:
        run = make(tmp_path / "out")
        (tmp_path / "elsewhere").write_text("")
        with pytest.raises(ValueError, match="outside"):
            run.finish("teacher", "hash", estimate(1.0), [tmp_path / "elsewhere"])
        with pytest.raises(ValueError, match="stage name"):
            run.finish("../teacher", "hash", estimate(1.0))

    def test_inputs_hash_by_content(self) -> None:
        assert hash_inputs(a=1, b=estimate(1.0)) == hash_inputs(b=estimate(1.0), a=1)
        assert hash_inputs(a=1) != hash_inputs(a=2)
        assert hash_inputs(a=["1"]) != hash_inputs(a=[1])
        with pytest.raises(TypeError):
            hash_inputs(a=object())

    def test_work_is_removed_and_what_is_adopted_stays(self, tmp_path: Path) -> None:
        run = make(tmp_path / "out")
        with run.work("convert") as folder:
            (folder / "model.tflite").write_bytes(b"model")
            run.adopt(folder / "model.tflite", run.student("tflite"))
        assert not folder.exists()
        assert run.student("tflite").read_bytes() == b"model"


class TestReports:
    def test_earlier_reports_are_kept(self, tmp_path: Path) -> None:
        run = make(tmp_path / "out")
        for command in ("one", "two", "three"):
            run.write_report(report_of(run, command=command))
        assert run.read_report().command == "three"
        kept = [Report.model_validate_json(path.read_text()) for path in sorted(run.reports.iterdir())]
        assert [report.command for report in kept] == ["one", "two"]

    def test_a_run_without_a_report_says_so(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match=r"report\.json.*--resume"):
            make(tmp_path / "out").read_report()

    def test_a_broken_report_names_the_file_and_the_place(self, tmp_path: Path) -> None:
        run = make(tmp_path / "out")
        run.write_report(report_of(run))
        run.report_json.write_text(run.report_json.read_text().replace('"seed": 0', '"seed": "x"'))
        with pytest.raises(ConfigurationError, match=r"report\.json.*seed"):
            run.read_report()

    def test_artifacts_that_match_pass(self, tmp_path: Path) -> None:
        run = make(tmp_path / "out")
        run.student("tflite").write_bytes(b"model")
        run.verify_artifacts(report_of(run, artifact_of(run, run.student("tflite"))))

    def test_a_changed_artifact_is_refused_with_both_hashes(self, tmp_path: Path) -> None:
        run = make(tmp_path / "out")
        run.student("tflite").write_bytes(b"model")
        report = report_of(run, artifact_of(run, run.student("tflite")))
        run.student("tflite").write_bytes(b"mode")
        with pytest.raises(BuildError) as caught:
            run.verify_artifacts(report)
        assert report.artifacts[0].sha256 in str(caught.value)
        assert hash_file(run.student("tflite")) in str(caught.value)
        run.student("tflite").unlink()
        with pytest.raises(ConfigurationError, match=r"student\.tflite is missing"):
            run.verify_artifacts(report)

    def test_a_path_out_of_the_run_is_refused(self, tmp_path: Path) -> None:
        run = make(tmp_path / "out")
        run.student("tflite").write_bytes(b"model")
        artifact = artifact_of(run, run.student("tflite")).model_copy(update={"path": "../../etc/hostname"})
        with pytest.raises(BuildError, match="out of the run"):
            run.verify_artifacts(report_of(run, artifact))


class TestAtomicWrites:
    def test_an_error_leaves_the_old_file_and_nothing_else(self, tmp_path: Path) -> None:
        target = tmp_path / "report.json"
        write_bytes(target, b"old")
        with pytest.raises(ZeroDivisionError), writing(target) as temporary:
            temporary.write_bytes(b"half")
            raise ZeroDivisionError
        assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
        assert target.read_bytes() == b"old"

    def test_a_writer_error_of_another_kind_is_not_called_an_output_error(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError), writing(tmp_path / "a"):
            (tmp_path / "not there").read_bytes()

    def test_a_place_that_takes_no_files_is_named(self) -> None:
        with pytest.raises(ConfigurationError, match="/proc/edgekd-run"):
            make(Path("/proc/edgekd-run"))

    def test_out_below_a_file_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(ConfigurationError, match="file/out"):
            make(tmp_path / "file" / "out")

    def test_a_full_disk_leaves_nothing_half_written(self, tmp_path: Path) -> None:
        # A file size limit gives the same failing write as a full disk, without filling one.
        run = make(tmp_path / "out")
        write_bytes(run.checkpoint("teacher"), b"old")
        script = (
            "import resource, sys, pathlib\n"
            "from edgekd.errors import ConfigurationError\n"
            "from edgekd.store import RunDirectory\n"
            "run = RunDirectory.open(pathlib.Path(sys.argv[1]))\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
            "try:\n"
            "    with run.writing(run.checkpoint('teacher')) as temporary:\n"
            "        temporary.write_bytes(b'x' * 10000)\n"
            "except ConfigurationError as error:\n"
            "    sys.stdout.write(str(error))\n"
        )
        done = subprocess.run([sys.executable, "-c", script, str(run.path)], capture_output=True, text=True, check=True)
        assert "teacher.pt" in done.stdout
        assert "File too large" in done.stdout
        assert run.checkpoint("teacher").read_bytes() == b"old"
        assert not [path for path in run.path.rglob("*") if "partial" in path.name]

    def test_a_real_full_disk(self, tmp_path: Path) -> None:
        disk = tmp_path / "disk"
        disk.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)], capture_output=True)
        if mounted.returncode:
            pytest.skip("mounting needs root")
        try:
            run = make(disk / "out")
            with pytest.raises(ConfigurationError, match="No space left"):
                run.write_html("x" * 10**6)
            assert not run.report_html.exists()
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
            with pytest.raises(ConfigurationError, match="Read-only"):
                run.write_html("x")
            with pytest.raises(ConfigurationError, match="Read-only"), run.lock("edgekd deploy"):
                pass
            assert RunDirectory.open(run.path).identity == run.identity
        finally:
            subprocess.run(["umount", str(disk)], check=True)


class TestLock:
    def test_a_second_process_is_told_who_holds_the_run(self, tmp_path: Path) -> None:
        run = make(tmp_path / "out")
        script = (
            "import sys, pathlib\n"
            "from edgekd.store import RunDirectory\n"
            "with RunDirectory.open(pathlib.Path(sys.argv[1])).lock('edgekd fit'):\n"
            "    sys.stdout.write('held\\n'); sys.stdout.flush(); sys.stdin.read()\n"
        )
        holder = subprocess.Popen(
            [sys.executable, "-c", script, str(run.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ConfigurationError, match=rf"'edgekd fit', process {holder.pid}"), run.lock("edgekd deploy"):
            pass
        holder.kill()
        holder.wait()
        with run.lock("edgekd deploy"):
            pass

    def test_leftovers_of_a_killed_writer_are_cleared(self, tmp_path: Path) -> None:
        run = make(tmp_path / "out")
        (run.path / "stages").mkdir()
        (run.path / ".student.77.partial.tflite").write_bytes(b"half")
        (run.path / "stages" / ".teacher.77.partial.json").write_bytes(b"half")
        (run.path / ".work-convert").mkdir()
        with run.lock("edgekd fit"):
            assert sorted(path.name for path in run.path.rglob("*")) == [".lock", "run.json", "stages"]
