"""Prints the latency priors of the shipped board profiles, from published figures alone.

Level: XNNPACK publishes MobileNet v1 on all four cores of two Pis (int8 and fp32); ncnn publishes one and four
threads on all the boards. One XNNPACK thread is taken as ncnn's one thread times XNNPACK / ncnn at four threads.
Where XNNPACK has no figure for a board, the Pi 4's ratio stands in for it.
Shape: the share of each operator kind. MobileNet v1 against v2 puts a depthwise MAC at 5 to 10 pointwise ones
(7 is used); a convolution of few input channels at 2; a dense MAC, which reads a weight each, at 4.
Overheads: no board publishes them. LiteRT students of 0.01 to 46 MMACs on an x86-64 machine put them at 0.6 us and
0.15 us per operator; these are taken 50 and 33 times larger for the Pi 4, an order of magnitude for an in-order
memory system and an interpreter outside the cache, and scaled to other boards by ncnn's smallest network, blazeface.

    python benchmarks/profile_priors/carry_over.py
"""

from __future__ import annotations

import csv
from pathlib import Path

DATA = Path(__file__).resolve().parents[1] / "data"
BOARDS = {
    "rpi3": ("Raspberry Pi 3 Model B+", "RPi 3+"),
    "rpi4": ("Raspberry Pi 4 Model B", "RPi 4 (ARM64)"),
    "rpi5": ("Raspberry Pi 5 Broadcom BCM2712, Cortex", None),
    "rpi-zero2w": ("Raspberry Pi Zero 2 W", None),
    "jetson-orin-nano": ("NVIDIA Jetson Orin Nano", None),
    "jetson-agx-orin": ("NVIDIA Jetson AGX Orin", None),
}
MMACS = {"pointwise": 539.5, "depthwise": 17.4, "conv": 10.8, "dense": 1.0}
RELATIVE_COST = {"conv": 2.0, "pointwise": 1.0, "depthwise": 7.0, "dense": 4.0, "other": 4.0}
OVERHEAD_MS, PER_OPERATOR_MS, ADD_MS_PER_MBYTE = 0.03, 0.005, 1.0


def ncnn_ms(board: str, model: str, threads: int) -> float | None:
    """The CPU figure; of several runs the first."""
    with (DATA / "ncnn_rpi_jetson.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            asked = row["board"].startswith(board), row["model"] == model, row["num_threads"] == str(threads)
            if all(asked) and row["gpu_device"] == "-1":
                return float(row["avg_ms"])
    return None


def xnnpack_ms(board: str, precision: str) -> float:
    with (DATA / "published_spot_figures.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if (row["board"], row["model"], row["precision"]) == (board, "MobileNet v1 1.0X 224", precision):
                return float(row["latency_ms"])
    raise LookupError(f"no XNNPACK figure for {board}, {precision}")


def main() -> None:
    blazeface_pi4 = ncnn_ms(BOARDS["rpi4"][0], "blazeface", 1)
    for name, (board, xnnpack_board) in BOARDS.items():
        for scheme, precision, model in (("wi8_ai8", "int8", "mobilenet_int8"), ("fp32", "fp32", "mobilenet")):
            source = BOARDS[name if xnnpack_board else "rpi4"]
            ratio = xnnpack_ms(source[1], precision) / ncnn_ms(source[0], model, 4)
            level = ncnn_ms(board, model, 1) * ratio
            unit = level / sum(RELATIVE_COST[kind] * mmacs for kind, mmacs in MMACS.items())
            slower = ncnn_ms(board, "blazeface", 1) / blazeface_pi4
            print(f"# {name} {scheme}: MobileNet v1 in about {level:.0f} ms on one thread (ratio {ratio:.2f})")
            print(f"overhead_ms = {OVERHEAD_MS * slower:.2g}")
            per_operator = f"ms_per_op = {PER_OPERATOR_MS * slower:.2g}"
            moved = f"ms_per_mbyte = {ADD_MS_PER_MBYTE * slower:.2g}"
            for kind, cost in RELATIVE_COST.items():
                print(f"{kind} = {{ ms_per_mmac = {unit * cost:.2g}, {per_operator} }}")
            for kind in ("add", "pool"):
                print(f"{kind} = {{ {moved}, {per_operator} }}")


if __name__ == "__main__":
    main()
