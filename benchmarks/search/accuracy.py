"""Is the search worth its time? Against a uniform width multiplier, random search and the ladder of sizes.

All get the same task, teacher and budget (p90 on a profile calibrated on this machine). The search is `edgekd fit
--search halving`: the same code. The width multiplier is the middle student of the space at the widths that fit,
largest first (of the cheapest one where no middle one fits), with further seeds where these are few; random search
trains random students that fit. Both train whole students, one after the other, until they have spent at least the CPU
seconds of training that the search spent here, and keep their best by validation accuracy. The ladder, `edgekd fit
--search ladder`, ends when it ends. The test split judges what each keeps. One row a (task, budget, seed, method) is
appended to accuracy.jsonl; a row that is there is not run again. `--measure` then times every chosen student here with
random weights and writes the medians into the rows.

    edgekd calibrate --profile host --board local --out /tmp/here.toml
    python benchmarks/search/accuracy.py --profile /tmp/here.toml --task watch-gestures --seeds 0,1,2
    python benchmarks/search/accuracy.py --profile /tmp/here.toml --task fashion-mnist --option train_images=3000
    python benchmarks/search/accuracy.py --profile /tmp/here.toml --measure
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from edgekd.core.architecture import operator_list
from edgekd.core.calibration import level_of
from edgekd.core.propose import Proposal, candidate_of, excesses, needed, propose
from edgekd.core.propose import ladder as ladder_of
from edgekd.core.sampled_students import SampledStudent
from edgekd.core.spaces import SPACES, every_choice, space_named
from edgekd.load import load_profile
from edgekd.nn.students import Student
from edgekd.pipeline.boards.calibration_rounds import write_student
from edgekd.pipeline.boards.timing import BoardAddress, timer_on, write_random_files
from edgekd.pipeline.fitting.search import SearchSpace, Selection
from edgekd.pipeline.settings import with_task_schedules
from edgekd.records import Budget, Candidate, Recipe, Training
from edgekd.tasks import Task, load_task
from edgekd.train.distill import HARD_ONLY, train_model
from edgekd.train.examples import correct, examples_of, logits_of

ROWS = Path(__file__).with_name("accuracy.jsonl")
METHODS = ("search", "width", "random", "ladder")
SHARES = {"tight": 0.1, "loose": 0.6}
CPU = torch.device("cpu")


@functools.cache
def taught(reference: str, set_to: tuple[str, ...], seed: int) -> tuple[Task, torch.nn.Module, torch.Tensor]:
    """The task, and the teacher of a seed with its logits: the same for every method and budget."""
    task = load_task(reference, options_of(set_to))
    torch.manual_seed(seed)
    teacher, how = task.teacher.build(), {"seed": seed, "device": CPU, "on_progress": lambda line: None}
    if task.teacher.training is not None:
        data = task.development()
        train_model(teacher, data, task.input_shape, HARD_ONLY, task.teacher.training, title="teacher", **how)
    return task, teacher, logits_of(teacher, examples_of(task.train, task.input_shape).inputs, CPU)


def options_of(set_to: Sequence[str]) -> dict[str, int]:
    """Task options from `name=value`."""
    return {name: int(value) for name, _, value in (one.partition("=") for one in set_to)}


class Bench:
    """One task, budget and seed: trains students and counts the steps and multiply-accumulates that took."""

    def __init__(self, options: argparse.Namespace, recipe: Recipe, budget: Budget, seed: int) -> None:
        task, self.teacher, self.logits = taught(options.task, tuple(options.option), seed)
        self.task, self.recipe, self.budget, self.seed = task, recipe, budget, seed
        self.profile = load_profile(options.profile)
        self.space = space_named(task.default_space)
        self.data = task.development()
        self.how = {"device": CPU, "on_progress": lambda line: None}
        self.steps = 0
        self.work = 0.0
        self.runs = 0
        self.cpu_s = 0.0

    @functools.cached_property
    def fitting(self) -> list[Candidate]:
        """Every student that meets the budget, fewest MACs first."""
        return list(self.proposal.feasible)

    @functools.cached_property
    def proposal(self) -> Proposal:
        """What `edgekd fit` would try."""
        outputs = len(self.task.classes)
        return propose(self.space, self.task.input_shape, outputs, self.profile, self.budget, {}, Recipe().student.grow)

    def train(self, candidate: Candidate, schedule: Training, again: int = 0) -> tuple[float, Student]:
        """Distil a candidate, for the `again`-th time; its validation accuracy and the student."""
        architecture = self.space.architecture(candidate.choices, self.task.input_shape, len(self.task.classes))
        seed = self.seed + 1000 * again
        torch.manual_seed(seed)
        student, began = Student(architecture), time.process_time()
        trained = train_model(
            student,
            self.data,
            architecture.input_shape,
            self.recipe.distill.objectives,
            schedule,
            title=candidate.label,
            teacher_logits=self.logits,
            teacher=self.teacher,
            seed=seed,
            **self.how,
        )
        self.runs += 1
        self.cpu_s += time.process_time() - began
        self.steps += trained.steps
        self.work += trained.steps * operator_list(architecture).macs
        return trained.validation_accuracy, student

    def test(self, student: Student) -> float:
        """Accuracy on the test split."""
        examples = examples_of(self.task.test, student.architecture.input_shape)
        right = correct(logits_of(student, examples.inputs, CPU), examples.labels)
        return float(right.float().mean())


Found = tuple[Candidate, float, Student]
"""A candidate, its validation accuracy and the student."""


def best_of(bench: Bench, candidates: list[Candidate], cpu_s: float) -> Found:
    """The best of whole trainings, until so much is spent; candidates that are fewer are trained again, other seeds."""
    found: list[Found] = []
    while not found or bench.cpu_s < cpu_s:
        again, index = divmod(len(found), len(candidates))
        score, student = bench.train(candidates[index], bench.recipe.distill.training, again)
        found.append((candidates[index], score, student))
    return max(found, key=lambda one: one[1])


def selection(bench: Bench, scores: dict[int, float]) -> Selection:
    """`edgekd fit`'s own selection; `scores` gets each student's validation accuracy."""
    validation = examples_of(bench.task.validation, bench.task.input_shape)

    def distil(name: str, candidate: Candidate, schedule: Training) -> tuple[Student, object]:
        score, student = bench.train(candidate, schedule)
        scores[id(student)] = score
        return student, None

    def judge(student: Student, candidate: Candidate) -> tuple[bool, ...]:
        inputs = examples_of(bench.task.validation, student.architecture.input_shape).inputs
        return tuple(correct(logits_of(student, inputs, CPU), validation.labels).tolist())

    quiet = SimpleNamespace(stage=lambda *a: None, update=lambda *a: None, remark=lambda *a: None)
    return Selection(distil, judge, "{}-{}".format, bench.recipe.distill.training, quiet, quiet)


def search(bench: Bench, cpu_s: float) -> Found:
    scores: dict[int, float] = {}
    student = Recipe().student
    native = bench.task.input_shape
    sizes = ladder_of(bench.space, native, bench.fitting)
    among = SearchSpace(bench.space.dimensions(native), sizes, bench.fitting, student.grow, student.pool, bench.seed)
    selected = selection(bench, scores).halving(among)
    return selected.candidate, scores[id(selected.student)], selected.student


def ladder(bench: Bench, cpu_s: float) -> Found:
    scores: dict[int, float] = {}
    selected = selection(bench, scores).ladder(bench.proposal.first)
    return selected.candidate, scores[id(selected.student)], selected.student


def width(bench: Bench, cpu_s: float) -> Found:
    dimensions = bench.space.dimensions(bench.task.input_shape)
    known = {tuple(one.choices.items()): one for one in bench.fitting}
    for line in (
        {name: values[len(values) // 2] for name, values in dimensions.items()},
        {name: values[0] for name, values in dimensions.items()},
    ):
        widths = [tuple({**line, "width": value}.items()) for value in dimensions["width"]]
        fitting = [known[one] for one in widths if one in known]
        if fitting:
            return best_of(bench, fitting[::-1], cpu_s)
    raise SystemExit(f"no width of {bench.space.name} fits {bench.budget.constraints()}")


def random_search(bench: Bench, cpu_s: float) -> Found:
    order = np.random.default_rng(bench.seed).permutation(len(bench.fitting))
    return best_of(bench, [bench.fitting[index] for index in order], cpu_s)


RUN: dict[str, Callable[[Bench, float], Found]] = {
    "search": search,
    "width": width,
    "random": random_search,
    "ladder": ladder,
}


def limit_of(task: Task, profile_name: str, share: float) -> float:
    profile, space = load_profile(profile_name), SPACES[task.default_space]
    ends = sorted(
        needed("latency_p90_ms", one.predicted["latency_p90_ms"])
        for one in (
            candidate_of(space, choices, task.input_shape, len(task.classes), profile, Budget())
            for choices in every_choice(space, task.input_shape, {})
        )
    )
    return ends[int(share * (len(ends) - 1))]


def row_of(
    task: Task, recipe: Recipe, options: argparse.Namespace, budget: str, seed: int, method: str, searched: dict | None
) -> dict:
    """Run one method and judge what it keeps. `searched`: the row of the search, whose compute it may spend."""
    limit = limit_of(task, options.profile, SHARES[budget])
    bench = Bench(options, recipe, Budget(latency_p90_ms=limit), seed)
    candidate, validation, student = RUN[method](bench, searched["cpu_s"] if searched else 0.0)
    assert max(excesses(candidate, bench.budget.constraints()).values()) <= 1
    predicted = candidate.predicted["latency_p90_ms"]
    return {
        "task": options.task,
        "options": options_of(options.option),
        "budget": budget,
        "limit_p90_ms": limit,
        "fitting": len(bench.fitting),
        "seed": seed,
        "method": method,
        "epochs": recipe.distill.training.epochs,
        "validation": validation,
        "test": bench.test(student),
        "candidate": candidate.label,
        "choices": dict(candidate.choices),
        "space": candidate.space,
        "macs": candidate.macs,
        "predicted_p90_ms": predicted.value,
        "runs": bench.runs,
        "steps": bench.steps,
        "training_tmacs": bench.work / 1e12,
        "cpu_s": bench.cpu_s,
    }


def measured(rows: list[dict], profile_name: str) -> list[dict]:
    """The rows with the median latency of each chosen student, from interleaved rounds here with random weights."""
    from edgekd.cli.console import ConsoleProgress

    students: dict[str, SampledStudent] = {}
    for row in rows:
        task = load_task(row["task"], {})
        key = f"{row['task']} {row['candidate']}"
        students[key] = SampledStudent(row["space"], task.input_shape, row["choices"], len(task.classes))
    profile = load_profile(profile_name)
    with (
        ConsoleProgress() as progress,
        tempfile.TemporaryDirectory() as folder,
        timer_on(BoardAddress("local"), profile, "tflite", progress) as timer,
    ):
        wanted = {
            f"student-{index}.tflite": partial(write_student, one, "wi8_ai8")
            for index, one in enumerate(students.values())
        }
        files = write_random_files(wanted, Path(folder), progress)
        remote = timer.put({name: path for name, (path, _) in files.items()}, "benchmark-accuracy")
        rounds: list[list[float]] = [[] for _ in files]
        for _ in range(5):
            for index, (name, (_, sha256)) in enumerate(files.items()):
                rounds[index].append(timer.time(f"{remote}/{name}", sha256, 0.25).quiet_ms)
    levels = dict(zip(students, (level_of(one)[0] for one in rounds), strict=True))
    return [{**row, "measured_p50_ms": levels[f"{row['task']} {row['candidate']}"]} for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", required=True)
    parser.add_argument("--task", default="watch-gestures")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=NUMBER", help="one of the task's own")
    parser.add_argument("--seeds", default="0,1,2", help="comma separated; two calls may share the work")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--budgets", default=",".join(SHARES))
    parser.add_argument("--epochs", type=int, help="in place of the task's own, for a smoke run")
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--measure", action="store_true", help="time the students of all rows; train nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = [json.loads(line) for line in options.rows.read_text().splitlines()] if options.rows.exists() else []
    if options.measure:
        timed = measured(known, options.profile)
        options.rows.write_text("".join(json.dumps(row) + "\n" for row in timed))
        return
    task = load_task(options.task, options_of(options.option))
    recipe = with_task_schedules(Recipe(), task)
    if options.epochs:
        training = recipe.distill.training.model_copy(update={"epochs": options.epochs})
        recipe = recipe.model_copy(update={"distill": recipe.distill.model_copy(update={"training": training})})
    fields = ("task", "budget", "seed", "method", "epochs")
    done = {tuple(row[name] for name in fields): row for row in known if row["options"] == options_of(options.option)}
    for seed in map(int, options.seeds.split(",")):
        for budget in options.budgets.split(","):
            for method in options.methods.split(","):
                key = (options.task, budget, seed, method, recipe.distill.training.epochs)
                if key in done:
                    continue
                searched = done.get((*key[:3], "search", key[4]))
                if searched is None and method in ("width", "random"):
                    parser.error(f"{method} spends what the search spent, and there is no row of it: --methods search")
                done[key] = row = row_of(task, recipe, options, budget, seed, method, searched)
                with options.rows.open("a") as stream:
                    stream.write(json.dumps(row) + "\n")
                sys.stdout.write(f"{key}: test {row['test']:.4f}, {row['cpu_s']:.0f} s, {row['candidate']}\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
