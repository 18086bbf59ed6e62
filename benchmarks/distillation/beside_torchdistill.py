"""edgekd beside torchdistill: the same teacher, student, start, data, objective and steps, in one process.

torchdistill (PyPI, Matsubara 2021, arXiv:2011.12913) runs its own loop as its examples write it: a DistillationBox
with its KDLoss, DataLoader, optimizer and per-step schedule. Both validate after each epoch and keep the best epoch.

    pip install --no-deps --target build/torchdistill torchdistill torchvision
    PYTHONPATH=build/torchdistill python benchmarks/distillation/beside_torchdistill.py watch-gestures --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import RandomSampler, TensorDataset

from edgekd.core.statistics import paired_difference_interval
from edgekd.nn.students import Student
from edgekd.pipeline.distillation.distill import student_architecture
from edgekd.pipeline.settings import with_task_schedules
from edgekd.records import Hard, Hinton, Recipe, TaskChoice, Training
from edgekd.tasks import Development, Task, load_task
from edgekd.train.distill import HARD_ONLY, train_model
from edgekd.train.examples import correct, examples_of, logits_of
from edgekd.train.loop import learning_rate_factor, train
from edgekd.train.objectives import Loss

CPU = torch.device("cpu")
KEPT: list[torch.library.Library] = []
OBJECTIVES = (Hard(weight=0.3), Hinton(weight=0.7, temperature=3))


def import_torchdistill() -> Any:
    """Its box. Its import needs torchvision, of which the loop uses nothing that is compiled."""
    if not hasattr(torch.ops.torchvision, "nms"):
        # A torchvision built for CUDA beside a torch for CPUs lacks its compiled operators; declaring those that it
        # registers shapes for lets the Python part load.
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        KEPT.append(library)
    import torchdistill
    from torchdistill.core.distillation import get_distillation_box

    logging.getLogger("torchdistill").setLevel(logging.ERROR)
    return torchdistill.__version__, get_distillation_box


def torchdistill_loop(
    get_box: Any, teacher: nn.Module, student: nn.Module, task: Task, shape: tuple[int, int, int], schedule: Training
) -> nn.Module:
    """Its loop, by its examples; returns the best epoch's student."""
    data = examples_of(task.train, shape)
    per_epoch = len(data) // schedule.batch_size
    total = per_epoch * schedule.epochs
    config = {
        "num_epochs": schedule.epochs,
        "train_data_loader": {
            "dataset_id": "train",
            "sampler": {"class_or_func": RandomSampler, "kwargs": {}},
            "kwargs": {"batch_size": schedule.batch_size, "num_workers": 0, "drop_last": True},
        },
        "teacher": {"forward_proc": "forward_batch_only", "requires_grad": False},
        "student": {"forward_proc": "forward_batch_only"},
        "optimizer": {
            "key": "AdamW",
            "kwargs": {"lr": schedule.learning_rate, "weight_decay": schedule.weight_decay},
            "max_grad_norm": schedule.clip_norm,
        },
        "scheduler": {
            "key": "LambdaLR",
            "kwargs": {"lr_lambda": lambda step: learning_rate_factor(step, total, schedule.warmup_fraction)},
            "scheduling_step": 1,
        },
        "criterion": {
            "key": "WeightedSumLoss",
            "kwargs": {
                "sub_terms": {
                    "kd": {
                        "criterion": {
                            "key": "KDLoss",
                            "kwargs": {
                                "student_module_path": ".",
                                "student_module_io": "output",
                                "teacher_module_path": ".",
                                "teacher_module_io": "output",
                                "temperature": 3.0,
                                "alpha": 0.3,
                                "reduction": "batchmean",
                            },
                        },
                        "weight": 1.0,
                    }
                }
            },
        },
    }
    box = get_box(
        teacher.eval(),
        student,
        {"train": TensorDataset(data.inputs, data.labels)},
        config,
        CPU,
        None,
        False,
        1.0,
    )
    validation, best, state = examples_of(task.validation, shape), -1.0, {}
    for epoch in range(schedule.epochs):
        box.pre_epoch_process(epoch=epoch)
        for sample_batch, targets, supp_dict in box.train_data_loader:
            loss = box.forward_process(sample_batch, targets, supp_dict)
            box.post_forward_process(loss)
        box.post_epoch_process()
        accuracy = _share(correct(logits_of(box.student_model, validation.inputs, CPU), validation.labels))
        if accuracy >= best:
            best, state = accuracy, copy.deepcopy(box.student_model.state_dict())
    student.load_state_dict(state)
    return student.eval()


def edgekd_loop(
    teacher: nn.Module, student: nn.Module, task: Task, shape: tuple[int, int, int], schedule: Training, seed: int
) -> nn.Module:
    """The loop of edgekd, its one teacher pass included."""
    logits = logits_of(teacher, examples_of(task.train, task.input_shape).inputs, CPU)
    validation = examples_of(task.validation, shape)
    train(
        student, examples_of(task.train, shape, logits), validation, Loss(OBJECTIVES), schedule, seed=seed,
        device=CPU, title="student",
    )  # fmt: skip
    return student


def _share(flags: Tensor) -> float:
    return float(flags.float().mean())


def timed(work: Any) -> tuple[nn.Module, float, float]:
    """The result, wall seconds and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def run(task: Task, seed: int, epochs: int | None, version: str, get_box: Any, stored: Path) -> dict[str, Any]:
    """One row: both loops from the same start."""
    recipe = with_task_schedules(Recipe(task=TaskChoice(name=task.name), seed=seed), task)
    schedule = recipe.distill.training.model_copy(update={"patience": 10_000})
    if epochs is not None:
        schedule = schedule.model_copy(update={"epochs": epochs})
    architecture = student_architecture(recipe, task)
    shape = architecture.input_shape
    assert shape == task.input_shape, "torchdistill gives teacher and student the same input"
    torch.manual_seed(seed)
    teacher = task.teacher.build()
    if stored.exists():
        teacher.load_state_dict(torch.load(stored, weights_only=True)["state"])
    else:
        assert recipe.teacher is not None
        data, started = Development(task.train, task.validation), time.perf_counter()
        train_model(
            teacher, data, shape, HARD_ONLY, recipe.teacher, seed=seed, device=CPU, title="teacher",
            on_progress=lambda message: None,
        )  # fmt: skip
        stored.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"state": teacher.state_dict(), "seconds": time.perf_counter() - started}, stored)
    teacher.eval()
    torch.manual_seed(seed)
    start = Student(architecture)
    ours, ours_wall, ours_cpu = timed(lambda: edgekd_loop(teacher, copy.deepcopy(start), task, shape, schedule, seed))
    torch.manual_seed(seed)
    theirs, their_wall, their_cpu = timed(
        lambda: torchdistill_loop(get_box, teacher, copy.deepcopy(start), task, shape, schedule)
    )
    test = examples_of(task.test, shape)
    right = {name: correct(logits_of(m, test.inputs, CPU), test.labels) for name, m in (("e", ours), ("t", theirs))}
    per_epoch = len(task.train) // schedule.batch_size
    images = per_epoch * schedule.batch_size * schedule.epochs
    return {
        "task": task.name,
        "seed": seed,
        "steps": per_epoch * schedule.epochs,
        "edgekd_accuracy": round(_share(right["e"]), 5),
        "torchdistill_accuracy": round(_share(right["t"]), 5),
        "difference_interval": [
            round(end, 5) for end in paired_difference_interval(right["e"].tolist(), right["t"].tolist())
        ],
        "edgekd_images_per_cpu_s": round(images / ours_cpu),
        "torchdistill_images_per_cpu_s": round(images / their_cpu),
        "speed_ratio_cpu": round(their_cpu / ours_cpu, 3),
        "speed_ratio_wall": round(their_wall / ours_wall, 3),
        "torchdistill": version,
        "torch": torch.__version__,
    }


def main() -> None:
    """Run the seeds and append a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["watch-gestures", "fashion-mnist"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--work", type=Path, default=Path("build/distillation"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    version, get_box = import_torchdistill()
    task = load_task(arguments.task, {})
    for seed in arguments.seeds:
        stored = arguments.work / f"{task.name}-all-{seed}.pt"
        row = run(task, seed, arguments.epochs, version, get_box, stored)
        with (Path(__file__).resolve().parent / "results" / "beside_torchdistill.jsonl").open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
