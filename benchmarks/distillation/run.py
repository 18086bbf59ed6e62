"""Runs the cases of `cases.py` and appends one JSON line for each; what has its line already is not run again.

python benchmarks/distillation/run.py watch-gestures --seeds 0 1
python benchmarks/distillation/run.py fashion-mnist --seeds 0 --cases default dkd
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import sys
import time
from pathlib import Path

import torch
from cases import OBJECTIVES, REGIMES, few_labels

import edgekd
from edgekd.pipeline.distillation.distill import distill_task
from edgekd.pipeline.distillation.parts import Given
from edgekd.pipeline.settings import with_task_schedules
from edgekd.records import Distillation, Recipe, TaskChoice
from edgekd.tasks import Task, load_task

HERE = Path(__file__).resolve().parent
CASES_WITH_EVERY_LABEL = {**OBJECTIVES, **REGIMES}


class Quiet:
    """Progress that only warns."""

    def stage(self, name: str, detail: str = "") -> None:
        """Nothing."""

    def update(self, message: str) -> None:
        """Nothing."""

    def warn(self, message: str) -> None:
        """To stderr."""
        print(f"warning: {message}", file=sys.stderr)


def recipe_for(task: Task, distill: Distillation, seed: int) -> Recipe:
    """The default recipe with the case's changes, the task's schedule and no early stop, so that steps are equal."""
    assert task.distill is not None or "training" not in distill.model_fields_set
    recipe = with_task_schedules(Recipe(task=TaskChoice(name=task.name), distill=distill, seed=seed), task)
    training = recipe.distill.training
    training = training.model_copy(update={"patience": training.epochs})
    return recipe.model_copy(update={"distill": recipe.distill.model_copy(update={"training": training})})


def teacher_key(distill: Distillation) -> str:
    """Which labels the teacher learns from."""
    options = distill.semi_supervised
    few = options.labels is not None or options.label_groups
    return "few" if few and options.teacher_labels == "labelled" else "all"


def run_case(task: Task, name: str, distill: Distillation, seed: int, work: Path, given: dict[str, Given]) -> dict:
    """One row. Teachers are kept in `work` between processes, scratch students within one."""
    recipe = recipe_for(task, distill, seed)
    key = teacher_key(distill)
    stored = work / f"{task.name}-{key}-{seed}.pt"
    labels = "few" if len(distill.semi_supervised.label_groups) or distill.semi_supervised.labels else "all"
    shared = given.setdefault(f"{seed}-{key}-{labels}", Given(feature_cache=work / "features"))
    if shared.teacher is None and stored.exists():
        teacher = task.teacher.build()
        kept = torch.load(stored, weights_only=True)
        teacher.load_state_dict(kept["state"])
        shared = Given(teacher.eval(), kept["seconds"], shared.scratch, shared.more_teachers, shared.feature_cache)
    started, cpu = time.perf_counter(), time.process_time()
    taught = distill_task(recipe, task, Quiet(), shared)
    if shared.teacher is None:
        # A calibrated teacher has its scaling around it; what is kept is the network itself.
        module = getattr(taught.teacher, "model", taught.teacher)
        torch.save({"state": module.state_dict(), "seconds": taught.result.teacher_seconds}, stored)
        shared = Given(
            module, taught.result.teacher_seconds, shared.scratch, shared.more_teachers, shared.feature_cache
        )
    given[f"{seed}-{key}-{labels}"] = shared
    found = taught.result.model_dump(mode="json", exclude={"slices", "tried", "chosen_because"})
    return {
        "case": name,
        "seed": seed,
        **{field: round(value, 5) if isinstance(value, float) else value for field, value in found.items()},
        "wall_s": round(time.perf_counter() - started, 1),
        "cpu_s": round(time.process_time() - cpu, 1),
        "edgekd": edgekd.__version__,
        "torch": torch.__version__,
        "machine": platform.machine(),
    }


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["watch-gestures", "fashion-mnist"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--cases", nargs="*", help="names, or `few`, `objectives`, `regimes`; all by default")
    parser.add_argument("--work", type=Path, default=Path("build/distillation"), help="teachers and features")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    arguments.work.mkdir(parents=True, exist_ok=True)
    few = few_labels(arguments.task)
    every = {**few, **CASES_WITH_EVERY_LABEL}
    groups = {"few": list(few), "objectives": list(OBJECTIVES), "regimes": list(REGIMES)}
    wanted = [name for asked in arguments.cases or groups for name in groups.get(asked, [asked])]
    rows = HERE / "results" / f"{arguments.task}.jsonl"
    done = (
        {(row["case"], row["seed"]) for row in map(json.loads, rows.read_text().splitlines())}
        if rows.exists()
        else set()
    )
    task, given = load_task(arguments.task, {}), {}
    for seed in arguments.seeds:
        for name in wanted:
            if (name, seed) in done:
                continue
            row = run_case(task, name, every[name], seed, arguments.work, given)
            with rows.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
            print(
                f"{name:45} seed {seed}  {row['accuracy']:.4f} scratch {row['scratch_accuracy']:.4f} "
                f"val {row['val_accuracy']:.4f} teacher {row['teacher_accuracy']:.4f}  {row['wall_s']} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
