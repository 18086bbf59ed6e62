"""Is the search worth its time? Against a uniform width multiplier, random search and the ladder of sizes.

All get the same task, teacher, budget (p90 on a profile calibrated on this machine) and as nearly as can be the same
training steps: `--runs` whole training runs. The search spends them on three short runs for every whole one that the
others have left, as `edgekd fit --search halving` does: it is the same code. The width multiplier is the middle
student of the space at the widths that fit, largest first (of the cheapest one where no middle one fits), each with
several seeds where these are few; random search trains random students that fit. Each then keeps its best student by
validation accuracy, and the test split judges that one. One row a (task, budget, seed, method) is appended to
accuracy.jsonl; a row that is there is not run again. `--measure` then times every chosen student here with random
weights and writes the medians into the rows.

    edgekd calibrate --profile host --board local --out /tmp/here.toml
    python benchmarks/search/accuracy.py --profile /tmp/here.toml --task watch-gestures --seeds 3
    python benchmarks/search/accuracy.py --profile /tmp/here.toml --measure
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch

from edgekd.core.architecture import operator_list
from edgekd.core.calibration import level_of
from edgekd.core.propose import candidate_of, excesses, fits, needed
from edgekd.core.sampled_students import SampledStudent
from edgekd.core.search import Search
from edgekd.core.spaces import SPACES, every_choice, space_named
from edgekd.load import load_profile
from edgekd.nn.students import Student
from edgekd.pipeline.boards.calibration_rounds import write_student
from edgekd.pipeline.boards.timing import BoardAddress, timer_on, write_random_files
from edgekd.pipeline.fitting.search import Selection
from edgekd.pipeline.settings import with_task_schedules
from edgekd.records import Budget, Candidate, Recipe, Training
from edgekd.tasks import Task, load_task
from edgekd.train.distill import HARD_ONLY, train_model
from edgekd.train.examples import correct, examples_of, logits_of

ROWS = Path(__file__).with_name("accuracy.jsonl")
METHODS = ("search", "width", "random", "ladder")
SHARES = {"tight": 0.1, "loose": 0.6}
CPU = torch.device("cpu")
SHORT_FOR_ONE = 3
"""Short runs that cost as much as a whole one."""


@functools.cache
def taught(reference: str, seed: int) -> tuple[Task, torch.nn.Module, torch.Tensor]:
    """The task, and the teacher of a seed with its logits: the same for every method and budget."""
    task = load_task(reference, {})
    torch.manual_seed(seed)
    teacher, how = task.teacher.build(), {"seed": seed, "device": CPU, "on_progress": lambda line: None}
    if task.teacher.training is not None:
        data = task.development()
        train_model(teacher, data, task.input_shape, HARD_ONLY, task.teacher.training, title="teacher", **how)
    return task, teacher, logits_of(teacher, examples_of(task.train, task.input_shape).inputs, CPU)


class Bench:
    """One task, budget and seed: trains students and counts the steps and multiply-accumulates that took."""

    def __init__(self, reference: str, recipe: Recipe, budget: Budget, profile: str, seed: int) -> None:
        task, self.teacher, self.logits = taught(reference, seed)
        self.task, self.recipe, self.budget, self.seed = task, recipe, budget, seed
        self.profile = load_profile(profile)
        self.space = space_named(task.default_space)
        self.data = task.development()
        self.how = {"device": CPU, "on_progress": lambda line: None}
        self.steps = 0
        self.work = 0.0

    def candidate(self, choices: dict[str, int]) -> Candidate:
        """A choice with its predicted costs."""
        return candidate_of(
            self.space, choices, self.task.input_shape, len(self.task.classes), self.profile, self.budget
        )

    def fits(self, candidate: Candidate) -> bool:
        """Whether it meets the budget."""
        return fits(candidate, self.budget.constraints())

    def search(self) -> Search:
        """A search over what fits."""
        return Search(self.space.dimensions(self.task.input_shape), self.candidate, self.fits, self.seed)

    def train(self, candidate: Candidate, schedule: Training, again: int = 0) -> tuple[float, Student]:
        """Distil a candidate, for the `again`-th time; its validation accuracy and the student."""
        architecture = self.space.architecture(candidate.choices, self.task.input_shape, len(self.task.classes))
        seed = self.seed + 1000 * again
        torch.manual_seed(seed)
        student = Student(architecture)
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
        self.steps += trained.steps
        self.work += trained.steps * operator_list(architecture).macs
        return trained.validation_accuracy, student

    def test(self, student: Student) -> float:
        """Accuracy on the test split."""
        examples = examples_of(self.task.test, student.architecture.input_shape)
        right = correct(logits_of(student, examples.inputs, CPU), examples.labels)
        return float(right.float().mean())


def best_of(bench: Bench, candidates: list[Candidate], runs: int) -> tuple[Candidate, float, Student]:
    """The best of `runs` whole trainings; candidates that are fewer are trained again with other seeds."""
    found = []
    for index in range(runs):
        candidate, again = candidates[index % len(candidates)], index // len(candidates)
        score, student = bench.train(candidate, bench.recipe.distill.training, again)
        found.append((candidate, score, student))
    return max(found, key=lambda one: one[1])


def search(bench: Bench, runs: int) -> tuple[Candidate, float, Student]:
    """`edgekd fit --search halving`: its own selection, with so many short runs that the steps are equal."""
    scores: dict[int, float] = {}
    validation = examples_of(bench.task.validation, bench.task.input_shape)

    def distil(name: str, candidate: Candidate, schedule: Training) -> tuple[Student, object]:
        score, student = bench.train(candidate, schedule)
        scores[id(student)] = score
        return student, None

    def judge(student: Student, candidate: Candidate) -> tuple[bool, ...]:
        inputs = examples_of(bench.task.validation, student.architecture.input_shape).inputs
        return tuple(correct(logits_of(student, inputs, CPU), validation.labels).tolist())

    quiet = SimpleNamespace(stage=lambda *a: None, update=lambda *a: None, remark=lambda *a: None)
    names = "{}-{}".format
    selection = Selection(distil, judge, names, bench.recipe.distill.training, quiet, quiet)
    selected = selection.halving(bench.search(), max(2, SHORT_FOR_ONE * (runs - 1)))
    return selected.candidate, scores[id(selected.student)], selected.student


def ladder(bench: Bench, runs: int) -> tuple[Candidate, float, Student]:
    from edgekd.core.propose import propose

    proposal = propose(
        bench.space, bench.task.input_shape, len(bench.task.classes), bench.profile, bench.budget, {}, runs
    )
    return best_of(bench, list(proposal.first), len(proposal.first))


def width(bench: Bench, runs: int) -> tuple[Candidate, float, Student]:
    dimensions = bench.space.dimensions(bench.task.input_shape)
    middle = {name: values[len(values) // 2] for name, values in dimensions.items()}
    every = [bench.candidate({**middle, "width": value}) for value in dimensions["width"]]
    fitting = [candidate for candidate in every if bench.fits(candidate)]
    if not fitting:
        narrow = {**{name: values[0] for name, values in dimensions.items()}}
        fitting = [
            one for one in (bench.candidate({**narrow, "width": v}) for v in dimensions["width"]) if bench.fits(one)
        ]
    return best_of(bench, fitting[-runs:], runs)


def random_search(bench: Bench, runs: int) -> tuple[Candidate, float, Student]:
    search = bench.search()
    pool = [one for one in (search._feasible(search._random_choices()) for _ in range(200 * runs)) if one is not None]
    unique = list({one.label: one for one in pool}.values())
    return best_of(bench, unique[:runs], runs)


RUN: dict[str, Callable[[Bench, int], tuple[Candidate, float, Student]]] = {
    "search": search,
    "ladder": ladder,
    "width": width,
    "random": random_search,
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


def row_of(task: Task, recipe: Recipe, options: argparse.Namespace, budget: str, seed: int, method: str) -> dict:
    """Run one method and judge what it keeps."""
    limit = limit_of(task, options.profile, SHARES[budget])
    bench = Bench(options.task, recipe, Budget(latency_p90_ms=limit), options.profile, seed)
    began = time.process_time()
    candidate, validation, student = RUN[method](bench, options.runs)
    assert max(excesses(candidate, bench.budget.constraints()).values()) <= 1
    predicted = candidate.predicted["latency_p90_ms"]
    return {
        "task": options.task,
        "budget": budget,
        "limit_p90_ms": limit,
        "seed": seed,
        "method": method,
        "epochs": recipe.distill.training.epochs,
        "runs": options.runs,
        "validation": validation,
        "test": bench.test(student),
        "candidate": candidate.label,
        "choices": dict(candidate.choices),
        "space": candidate.space,
        "macs": candidate.macs,
        "predicted_p90_ms": predicted.value,
        "steps": bench.steps,
        "training_tmacs": bench.work / 1e12,
        "cpu_s": time.process_time() - began,
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
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=4, help="whole training runs that each method may spend")
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
    task = load_task(options.task, {})
    recipe = with_task_schedules(Recipe(), task)
    if options.epochs:
        training = recipe.distill.training.model_copy(update={"epochs": options.epochs})
        recipe = recipe.model_copy(update={"distill": recipe.distill.model_copy(update={"training": training})})
    fields = ("task", "budget", "seed", "method", "epochs", "runs")
    done = {tuple(row[name] for name in fields) for row in known}
    for seed in range(options.seeds):
        for budget in options.budgets.split(","):
            for method in options.methods.split(","):
                key = (options.task, budget, seed, method, recipe.distill.training.epochs, options.runs)
                if key in done:
                    continue
                row = row_of(task, recipe, options, budget, seed, method)
                with options.rows.open("a") as stream:
                    stream.write(json.dumps(row) + "\n")
                sys.stdout.write(f"{key}: test {row['test']:.4f}, {row['cpu_s']:.0f} s, {row['candidate']}\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
