"""What the training loop costs over a bare PyTorch loop of the same maths, and what stored teacher passes save.

Blocks of both take turns in one process on one thread; CPU seconds are compared, as ratios with their spread. With
`--formats` instead what channels-last and bfloat16 autocast save or cost on this CPU, on both tasks.

    python benchmarks/distillation/overhead.py --rounds 7
    python benchmarks/distillation/overhead.py --formats --rounds 5
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from edgekd.nn.students import Student
from edgekd.pipeline.distillation.distill import student_architecture
from edgekd.records import FitNet, Hard, Hinton, Recipe, TaskChoice, Training
from edgekd.tasks import load_task
from edgekd.train.examples import Examples, examples_of, logits_of
from edgekd.train.features import TeacherFeatures
from edgekd.train.loop import Additions, learning_rate_factor, train
from edgekd.train.objectives import Loss

CPU = torch.device("cpu")


def bare(
    model: nn.Module,
    data: Examples,
    validation: Examples,
    schedule: Training,
    memory_format: torch.memory_format = torch.channels_last,
    bfloat16: bool = False,
) -> None:
    """The loop as one would write it by hand for this one case: no choices, no checks, no messages."""
    torch.manual_seed(0)
    model.to(memory_format=memory_format)
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": weights, "weight_decay": schedule.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=schedule.learning_rate,
        fused=True,
    )
    average = copy.deepcopy(model)
    means = [value for value in average.state_dict().values() if value.is_floating_point()]
    values = [value for value in model.state_dict().values() if value.is_floating_point()]
    size, step = schedule.batch_size, 0
    per_epoch = len(data) // size
    planned = per_epoch * schedule.epochs
    for _ in range(schedule.epochs):
        model.train()
        for rows in torch.randperm(len(data))[: per_epoch * size].split(size):
            for group in optimizer.param_groups:
                group["lr"] = schedule.learning_rate * learning_rate_factor(step, planned, 0.1)
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                student = model(data.inputs[rows].contiguous(memory_format=memory_format)).float()
            soft = functional.kl_div(
                (student / 3).log_softmax(1),
                (data.teacher_logits[rows] / 3).log_softmax(1),
                reduction="batchmean",
                log_target=True,
            )
            loss = 0.3 * functional.cross_entropy(student, data.labels[rows]) + 0.7 * 9 * soft
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), schedule.clip_norm)
            optimizer.step()
            step += 1
            with torch.no_grad():
                torch._foreach_lerp_(means, values, 1 - min(0.98, step / (step + 9)))
        average.eval()
        with torch.no_grad():
            parts = [average(part.contiguous(memory_format=memory_format)) for part in validation.inputs.split(512)]
        (torch.cat(parts).argmax(1) == validation.labels).float().mean()


def cpu_s(work: Callable[[], object]) -> float:
    """CPU seconds of a block."""
    started = time.process_time()
    work()
    return time.process_time() - started


def compare(pairs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each by round, in turn, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in pairs}
    for number in range(rounds + 1):
        for name, work in pairs.items():
            taken = cpu_s(work)
            if number:
                seconds[name].append(taken)
    return seconds


def ratio(seconds: dict[str, list[float]], over: str, under: str) -> dict[str, float]:
    """Median and extremes of the rounds' ratios."""
    found = [a / b for a, b in zip(seconds[over], seconds[under], strict=True)]
    return {
        "median": round(statistics.median(found), 4),
        "low": round(min(found), 4),
        "high": round(max(found), 4),
        f"{over}_cpu_s": round(statistics.median(seconds[over]), 3),
        f"{under}_cpu_s": round(statistics.median(seconds[under]), 3),
    }


def formats(name: str, rounds: int) -> dict[str, Any]:
    """The bare loop in each memory format and with bfloat16 autocast, and the teacher's pass in each format."""
    task = load_task(name, {})
    architecture = student_architecture(Recipe(task=TaskChoice(name=name)), task)
    inputs = examples_of(task.train, architecture.input_shape).inputs[:1920]
    logits = torch.zeros(len(inputs), len(task.classes))
    data = Examples(inputs, torch.from_numpy(task.train.labels[:1920]), logits)
    few = Examples(inputs[:64], data.labels[:64])
    schedule = Training(epochs=1, learning_rate=3e-3)
    teacher = task.teacher.build().eval()
    plain, last = torch.contiguous_format, torch.channels_last

    def passed(memory_format: torch.memory_format) -> None:
        teacher.to(memory_format=memory_format)
        with torch.no_grad():
            for part in inputs.split(512):
                teacher(part.contiguous(memory_format=memory_format))

    def trained(memory_format: torch.memory_format, bfloat16: bool = False) -> None:
        bare(Student(architecture), data, few, schedule, memory_format, bfloat16)

    students = compare(
        {"plain": lambda: trained(plain), "last": lambda: trained(last), "bfloat16": lambda: trained(last, True)},
        rounds,
    )
    teachers = compare({"plain": lambda: passed(plain), "last": lambda: passed(last)}, rounds)
    return {
        "training a student, plain over channels-last": ratio(students, "plain", "last"),
        "training a student, bfloat16 over float32": ratio(students, "bfloat16", "last"),
        "teacher pass, plain over channels-last": ratio(teachers, "plain", "last"),
    }


def append(row: dict[str, Any]) -> None:
    """Append a row to the results, and show it."""
    with (Path(__file__).resolve().parent / "results" / "overhead.jsonl").open("a") as stream:
        stream.write(json.dumps(row) + "\n")
    print(json.dumps(row, indent=2))


def main() -> None:
    """Measure, and append a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--formats", action="store_true", help="memory formats and bfloat16 instead")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.formats:
        found = {name: formats(name, arguments.rounds) for name in ("watch-gestures", "fashion-mnist")}
        append({**found, "torch": torch.__version__})
        return
    task = load_task("watch-gestures", {})
    architecture = student_architecture(Recipe(task=TaskChoice(name=task.name)), task)
    teacher = task.teacher.build().eval()
    shape = architecture.input_shape
    inputs = examples_of(task.train, shape).inputs
    data = examples_of(task.train, shape, logits_of(teacher, inputs, CPU))
    validation = examples_of(task.validation, shape)
    schedule = Training(epochs=arguments.epochs, learning_rate=3e-3, patience=arguments.epochs)
    response, hint = Loss((Hard(weight=0.3), Hinton(weight=0.7))), (Hard(), FitNet())

    def loop(loss: Loss, additions: Additions = Additions()) -> None:
        train(
            Student(architecture), data, validation, loss, schedule, seed=0, device=CPU, title="", additions=additions
        )

    def asking_each_step() -> None:
        def ask(_model: nn.Module, batch: Tensor, _labels: Tensor, _teacher: Tensor | None) -> Tensor:
            with torch.no_grad():
                teacher(batch)
            return batch

        loop(response, Additions(change_inputs=ask))

    overhead = compare(
        {"edgekd": lambda: loop(response), "bare": lambda: bare(Student(architecture), data, validation, schedule)},
        arguments.rounds,
    )
    fewer = max(2, arguments.rounds // 2)
    logits = compare({"asked": asking_each_step, "stored": lambda: loop(response)}, fewer)
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        TeacherFeatures(teacher, inputs, CPU, cache)
        features = compare(
            {
                "asked": lambda: loop(Loss(hint), Additions(features=TeacherFeatures(teacher, inputs, CPU))),
                "stored": lambda: loop(Loss(hint), Additions(features=TeacherFeatures(teacher, inputs, CPU, cache))),
            },
            fewer,
        )
        size = sum(path.stat().st_size for path in cache.rglob("*.npy"))
    row = {
        "loop over bare": ratio(overhead, "edgekd", "bare"),
        "logits, asked each step over stored": ratio(logits, "asked", "stored"),
        "features, asked each step over stored": ratio(features, "asked", "stored"),
        "features_bytes": size,
        "inputs": len(data),
        "steps": schedule.epochs * (len(data) // schedule.batch_size),
        "student_parameters": sum(parameter.numel() for parameter in Student(architecture).parameters()),
        "torch": torch.__version__,
    }
    append(row)


if __name__ == "__main__":
    main()
