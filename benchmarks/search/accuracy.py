"""Is the search worth its time? Halving against the ladder, a uniform width multiplier and random search.

All four get the same task, teacher, budget (p90 on a profile) and as nearly as can be the same training steps:
`pool` short runs of halving cost about as much as `grow` whole runs of the others. The width multiplier is the middle
student of the space at every width that fits; random search trains random students that fit, to the end. Each then
keeps its best student by validation accuracy, and the test split judges that one. One row a (task, budget, seed,
method) is appended to accuracy.jsonl; a row that is there is not run again.

    python benchmarks/search/accuracy.py --profile /tmp/here.toml --task watch-gestures --seeds 3
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from edgekd.core.architecture import operator_list
from edgekd.core.propose import candidate_of, excesses, fits, needed
from edgekd.core.search import Search, halving_schedules, survivors
from edgekd.core.spaces import SPACES, every_choice, space_named
from edgekd.load import load_profile
from edgekd.nn.students import Student
from edgekd.pipeline.settings import with_task_schedules
from edgekd.records import Budget, Candidate, Recipe, Training
from edgekd.tasks import Task, load_task
from edgekd.train.distill import HARD_ONLY, teacher_pass, train_model
from edgekd.train.examples import correct, examples_of, logits_of

ROWS = Path(__file__).with_name("accuracy.jsonl")
METHODS = ("halving", "ladder", "width", "random")
SHARES = {"tight": 0.1, "loose": 0.6}
CPU = torch.device("cpu")


class Bench:
    """One task, budget and seed: trains students and counts the steps and multiply-accumulates that took."""

    def __init__(self, task: Task, recipe: Recipe, budget: Budget, profile: str, seed: int) -> None:
        self.task, self.recipe, self.budget, self.seed = task, recipe, budget, seed
        self.profile = load_profile(profile)
        self.space = space_named(task.default_space)
        self.data = task.development()
        self.how = {"seed": seed, "device": CPU, "on_progress": lambda line: None}
        torch.manual_seed(seed)
        self.teacher = task.teacher.build()
        if recipe.teacher is not None:
            train_model(
                self.teacher, self.data, task.input_shape, HARD_ONLY, recipe.teacher, title="teacher", **self.how
            )
        self.logits = teacher_pass(self.teacher, self.data, task.input_shape, CPU)
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

    def train(self, candidate: Candidate, schedule: Training) -> tuple[float, Student]:
        """Distil a candidate; its validation accuracy and the student."""
        architecture = self.space.architecture(candidate.choices, self.task.input_shape, len(self.task.classes))
        torch.manual_seed(self.seed)
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


def best_of(bench: Bench, candidates: list[Candidate]) -> tuple[Candidate, float, Student]:
    found = []
    for candidate in candidates:
        score, student = bench.train(candidate, bench.recipe.distill.training)
        found.append((candidate, score, student))
    return max(found, key=lambda one: one[1])


def halving(bench: Bench, runs: int) -> tuple[Candidate, float, Student]:
    search, pool = bench.search(), 3 * runs
    schedules = halving_schedules(bench.recipe.distill.training, 3)
    first = search.ask((pool + 1) // 2)
    for candidate in first:
        search.tell(candidate, bench.train(candidate, schedules[0])[0])
    for candidate in search.ask(pool - len(first)):
        search.tell(candidate, bench.train(candidate, schedules[0])[0])
    alive = [one.candidate for one in search.best(survivors(len(search.scored)))]
    scores = [bench.train(candidate, schedules[1])[0] for candidate in alive]
    order = sorted(range(len(alive)), key=lambda index: -scores[index])
    return best_of(bench, [alive[index] for index in order[: survivors(len(alive))]])


def ladder(bench: Bench, runs: int) -> tuple[Candidate, float, Student]:
    from edgekd.core.propose import propose

    proposal = propose(
        bench.space, bench.task.input_shape, len(bench.task.classes), bench.profile, bench.budget, {}, runs
    )
    return best_of(bench, list(proposal.ladder))


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
    return best_of(bench, fitting[-runs:])


def random_search(bench: Bench, runs: int) -> tuple[Candidate, float, Student]:
    search = bench.search()
    pool = [one for one in (search._feasible(search._random_choices()) for _ in range(200 * runs)) if one is not None]
    unique = list({one.label: one for one in pool}.values())
    return best_of(bench, unique[:runs])


RUN: dict[str, Callable[[Bench, int], tuple[Candidate, float, Student]]] = {
    "halving": halving,
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", required=True)
    parser.add_argument("--task", default="watch-gestures")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=4, help="whole training runs that each method may spend")
    parser.add_argument("--epochs", type=int, help="in place of the task's own, for a smoke run")
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []
    task = load_task(options.task, {})
    recipe = with_task_schedules(Recipe(), task)
    if options.epochs:
        training = recipe.distill.training.model_copy(update={"epochs": options.epochs})
        recipe = recipe.model_copy(update={"distill": recipe.distill.model_copy(update={"training": training})})
    for seed in range(options.seeds):
        for name, share in SHARES.items():
            limit = limit_of(task, options.profile, share)
            for method in METHODS:
                epochs = recipe.distill.training.epochs
                key = (task.name, name, seed, method, epochs, options.runs)
                if key in {
                    tuple(row[k] for k in ("task", "budget", "seed", "method", "epochs", "runs")) for row in known
                }:
                    continue
                bench = Bench(task, recipe, Budget(latency_p90_ms=limit), options.profile, seed)
                began = time.process_time()
                candidate, validation, student = RUN[method](bench, options.runs)
                assert max(excesses(candidate, bench.budget.constraints()).values()) <= 1
                row = {
                    "task": task.name,
                    "budget": name,
                    "limit_p90_ms": limit,
                    "seed": seed,
                    "method": method,
                    "epochs": epochs,
                    "runs": options.runs,
                    "validation": validation,
                    "test": bench.test(student),
                    "candidate": candidate.label,
                    "macs": candidate.macs,
                    "steps": bench.steps,
                    "training_tmacs": bench.work / 1e12,
                    "cpu_s": time.process_time() - began,
                }
                known.append(row)
                with ROWS.open("a") as stream:
                    stream.write(json.dumps(row) + "\n")
                sys.stdout.write(f"{key}: validation {validation:.4f}, test {row['test']:.4f}, {row['cpu_s']:.0f} s\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
