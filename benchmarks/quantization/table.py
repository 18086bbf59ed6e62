"""Prints results/zoo.json as the Markdown table of README.md: python -m benchmarks.quantization.table."""

from __future__ import annotations

import json

from benchmarks.quantization.run import RESULTS

PAIRS = ("float-torch", "torch-tflite", "onnx-tflite", "onnx-tflite reference", "onnx-onnx deployed")
HEAD = (
    "| network | parameters | fp32 | int8 | fake-quantized vs float | torch vs TFLite | ONNX vs TFLite | "
    "ONNX vs TFLite reference | ONNX exact vs as deployed here | CPU s |"
)


def main() -> None:
    record = json.loads((RESULTS / "zoo.json").read_text())
    print(HEAD)
    print("|" + " --- |" * (HEAD.count("|") - 1))
    refused = []
    for name, row in record["networks"].items():
        if row["outcome"] == "refused":
            refused.append(f"- {name}: {row['reason']}")
            continue
        rungs = {rung["pair"]: rung for rung in row["rungs"]}
        found = [rungs[pair] for pair in PAIRS]
        cells = [name, str(row["parameters"]), f"{row['accuracy_fp32']:.3f}", f"{row['accuracy_int8']:.3f}"]
        cells += [
            f"{rung['top1_agreement']:.1%} · {rung['identical_logits']:.1%} · {rung['max_abs_lsb']}" for rung in found
        ]
        print("| " + " | ".join([*cells, str(row["calibrate_and_convert_cpu_s"])]) + " |")
    print("\nRefused:\n\n" + "\n".join(refused))


if __name__ == "__main__":
    main()
