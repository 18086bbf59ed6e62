from edgekd.records import Record
from edgekd.store import RunDirectory


class Weights(Record):
    value: int


def run_with(path, stages):
    run = RunDirectory.create(path, "task", "rpi4")
    for name, value in stages.items():
        checkpoint = run.checkpoint(name)
        checkpoint.parent.mkdir(exist_ok=True)
        checkpoint.write_bytes(bytes([value]))
        run.finish(name, f"hash-{name}", Weights(value=value), [checkpoint])
    return run


def test_stages_of_another_run_are_taken_by_name_and_count_only_for_the_same_inputs(tmp_path):
    first = run_with(tmp_path / "first", {"teacher": 1, "student-1": 2, "quantized": 3})
    second = run_with(tmp_path / "second", {"student-1": 9})
    second.take_stages(first, ("teacher", "student-"))
    assert second.finished("teacher", "hash-teacher", Weights) == Weights(value=1)
    assert second.finished("teacher", "another hash", Weights) is None
    assert second.checkpoint("teacher").read_bytes() == b"\x01"
    assert second.finished("student-1", "hash-student-1", Weights) == Weights(value=9)
    assert not second.checkpoint("quantized").exists()
