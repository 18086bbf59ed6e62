"""How many short runs, how many whole ones? Searches simulated on students that were all trained short and whole.

The seven people of watch-gestures' training and validation splits are dealt anew in each `deal`: two judge, two more
stand for people that nobody has seen, three train. The task's own test people take no part. Each row is a student of a
deal that fits a budget: its validation score after a short run, and validation and unseen accuracy of two whole runs
that differ in their seed alone. `--train` adds rows (about ten minutes a deal and budget on one core); without it the
tables of README.md are printed.

    python benchmarks/search/finalists.py
    python benchmarks/search/finalists.py --train --profile /tmp/here.toml --limit-ms 0.00416 --budget tight --deals 2,3
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from scipy.stats import spearmanr

from edgekd.core.propose import ladder, propose
from edgekd.core.search import Search, short_schedule
from edgekd.core.spaces import space_named
from edgekd.load import load_profile
from edgekd.nn.students import Student
from edgekd.pipeline.fitting.search import first_asked
from edgekd.pipeline.settings import with_task_schedules
from edgekd.records import Budget, Candidate, Recipe, Training
from edgekd.tasks import Development, Split, load_task
from edgekd.train.distill import HARD_ONLY, train_model
from edgekd.train.examples import correct, examples_of, logits_of

ROWS = Path(__file__).with_name("finalists.jsonl")
SIZES = {"tight": 3, "loose": 5}
SPREAD, DRAWN = 12, 5
WAYS = ((10, 1), (7, 2), (4, 3), (1, 4))
"""Short runs after the sizes, and whole runs: all cost about as much."""

SIMULATED = 400
CPU = torch.device("cpu")
QUIET = {"device": CPU, "on_progress": lambda line: None}


def trained(options: argparse.Namespace, deal: int) -> Iterator[dict]:
    """The rows of one deal."""
    task = load_task("watch-gestures", {})
    recipe, space = with_task_schedules(Recipe(), task), space_named(task.default_space)
    native, outputs = task.input_shape, len(task.classes)
    budget, profile = Budget(latency_p90_ms=options.limit_ms), load_profile(options.profile)
    fitting = list(propose(space, native, outputs, profile, budget, {}, recipe.student.grow).feasible)
    sizes = list(ladder(space, native, fitting))[: SIZES[options.budget]]
    spread = Search(space.dimensions(native), [one for one in fitting if one not in sizes], 777).ask(SPREAD)
    left = sorted((one for one in fitting if one not in (*sizes, *spread)), key=lambda one: one.macs)
    larger = left[len(left) // 3 :]
    drawn = [larger[index] for index in np.random.default_rng(5).permutation(len(larger))[:DRAWN]]

    groups = np.concatenate([task.train.groups, task.validation.groups])
    every = Split(
        np.concatenate([task.train.inputs, task.validation.inputs]),
        np.concatenate([task.train.labels, task.validation.labels]),
        groups,
    )
    order = [(deal + step) % 7 + 1 for step in range(7)]
    judging, unseen, training = (every.part(np.isin(groups, who)) for who in (order[:2], order[2:4], order[4:]))
    data = Development(training, judging)
    torch.manual_seed(deal)
    teacher = task.teacher.build()
    assert task.teacher.training is not None
    train_model(teacher, data, native, HARD_ONLY, task.teacher.training, title="teacher", seed=deal, **QUIET)
    logits = logits_of(teacher, examples_of(training, native).inputs, CPU)

    def run(candidate: Candidate, schedule: Training, seed: int) -> tuple[float, float]:
        architecture = space.architecture(candidate.choices, native, outputs)
        torch.manual_seed(seed)
        student = Student(architecture)
        how = {"title": candidate.label, "teacher_logits": logits, "teacher": teacher, "seed": seed, **QUIET}
        shape, objectives = architecture.input_shape, recipe.distill.objectives
        found = train_model(student, data, shape, objectives, schedule, **how)
        examples = examples_of(unseen, shape)
        right = correct(logits_of(student, examples.inputs, CPU), examples.labels)
        return found.validation_accuracy, float(right.float().mean())

    whole = recipe.distill.training
    for number, candidate in enumerate((*sizes, *spread, *drawn)):
        seed = 100 * deal + number
        yield {
            "deal": deal,
            "budget": options.budget,
            "size": candidate in sizes,
            "choices": dict(candidate.choices),
            "macs": candidate.macs,
            "short": run(candidate, short_schedule(whole), seed)[0],
            "whole": [run(candidate, whole, seed), run(candidate, whole, seed + 5000)],
        }


def simulated(rows: list[dict], short: int, whole: int, seed: int) -> tuple[float, float]:
    """Validation and unseen accuracy of what one search keeps of a deal's students."""
    random = np.random.default_rng(seed)
    students = [SimpleNamespace(**row, parameters=0, label=str(number)) for number, row in enumerate(rows)]
    search = Search(space_named("ds-cnn").dimensions((6, 1, 128)), [one for one in students if not one.size], seed)
    for one in students:
        if one.size:
            search.tell(one, one.short)
    count, left = first_asked(short), short
    while left > 0:
        asked = search.ask(min(count, left))
        if not asked:
            break
        for one in asked:
            search.tell(one, one.short)
        left, count = left - len(asked), 2
    return max(tuple(one.candidate.whole[random.integers(2)]) for one in search.best(whole))


def at_random(rows: list[dict], count: int, seed: int) -> tuple[float, float]:
    """The same of random students, all trained whole."""
    random = np.random.default_rng(seed)
    chosen = random.permutation(len(rows))[:count]
    return max(tuple(rows[index]["whole"][random.integers(2)]) for index in chosen)


def tables(rows: list[dict]) -> None:
    deals: dict[tuple[str, int], list[dict]] = {}
    for row in rows:
        deals.setdefault((row["budget"], row["deal"]), []).append(row)
    for budget in SIZES:
        found = {deal: one for (name, deal), one in deals.items() if name == budget}
        sys.stdout.write(f"{budget}: {len(found)} deals, {sum(map(len, found.values()))} students\n")
        runs = {deal: np.array([row["whole"] for row in one]) for deal, one in found.items()}
        luck = np.sqrt(np.mean([(one[:, 0] - one[:, 1]) ** 2 / 2 for one in runs.values()]))
        same = [spearmanr(one[:, 0, 1], one[:, 1, 1]).statistic for one in runs.values()]
        within = [np.mean([spearmanr(*one[:, run].T).statistic for run in (0, 1)]) for one in runs.values()]
        sys.stdout.write(
            f"  a whole run's luck: {100 * luck:.1f} points (standard deviation of accuracy)\n"
            f"  rank correlation of unseen accuracy between two runs of the same students: {np.mean(same):.2f}\n"
            f"  rank correlation of validation and unseen accuracy of the same runs: {np.mean(within):.2f}\n"
        )
        sizes, share = SIZES[budget], 1 / 3
        for short, whole in WAYS:
            cost = round((sizes + short) * share + whole)
            means = []
            for one in found.values():
                ours = np.mean([simulated(one, short, whole, seed) for seed in range(SIMULATED)], axis=0)
                theirs = np.mean([at_random(one, cost, seed) for seed in range(SIMULATED)], axis=0)
                means.append((*ours, *theirs))
            mean = 100 * np.mean(means, axis=0)
            sys.stdout.write(
                f"  {short} short after {sizes} sizes, {whole} whole: validation {mean[0]:.1f}, unseen {mean[1]:.1f}; "
                f"{cost} random whole ones: {mean[2]:.1f}, {mean[3]:.1f}\n"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--train", action="store_true", help="append the rows of --deals; else print the tables")
    parser.add_argument("--profile", help="with --train")
    parser.add_argument("--limit-ms", type=float, help="p90 latency, with --train")
    parser.add_argument("--budget", choices=SIZES, default="tight")
    parser.add_argument("--deals", default="2,3", help="comma separated, each 0 to 6")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.train:
        tables([json.loads(line) for line in options.rows.read_text().splitlines()])
        return
    if options.profile is None or options.limit_ms is None:
        parser.error("--train needs --profile and --limit-ms")
    for deal in map(int, options.deals.split(",")):
        for row in trained(options, deal):
            with options.rows.open("a") as stream:
                stream.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
