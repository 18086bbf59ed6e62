"""Prints results/zoo.json as the Markdown table of README.md: python -m benchmarks.quantization.table.

Two promises stand per network. "Same parameters": torch, ONNX (exact), TFLite's reference kernels and TFLite as
deployed agree on at least 99 % of the inputs. "Same logits": at least 99 % of TFLite's and ONNX's are identical and
none is more than 2 LSB off, and torch and TFLite agree on 99.5 % of the inputs and 90 % of the logits.
"""

from __future__ import annotations

import json
from typing import Any

from benchmarks.quantization.run import RESULTS
from edgekd.convert.parity import LEAST_AGREEMENT

PAIRS = ("float-torch", "torch-tflite", "onnx-tflite", "onnx-tflite reference", "onnx-onnx deployed")
GATED = ("torch-tflite", "onnx-tflite", "onnx-tflite reference")
HEAD = (
    "| network | parameters | fp32 | int8 | fake-quantized vs float | torch vs TFLite | ONNX vs TFLite | "
    "ONNX vs TFLite reference | ONNX exact vs as deployed here | CPU s | same parameters | same logits |"
)


def same_parameters(rungs: dict[str, Any]) -> bool:
    return all(rungs[pair]["top1_agreement"] >= LEAST_AGREEMENT for pair in GATED)


def same_logits(rungs: dict[str, Any]) -> bool:
    files, torch = rungs["onnx-tflite"], rungs["torch-tflite"]
    return (
        files["identical_logits"] >= 0.99
        and files["max_abs_lsb"] <= 2
        and torch["top1_agreement"] >= 0.995
        and torch["identical_logits"] >= 0.90
    )


def main() -> None:
    record = json.loads((RESULTS / "zoo.json").read_text())
    print(HEAD)
    print("|" + " --- |" * (HEAD.count("|") - 1))
    refused, kept, failed = [], [], []
    for name, row in record["networks"].items():
        if row["outcome"] == "refused":
            refused.append(f"- {name}: {row['reason']}")
            continue
        rungs = {rung["pair"]: rung for rung in row["rungs"]}
        found = [rungs[pair] for pair in PAIRS]
        mixed = row["outcome"] != "converts"
        if mixed:
            refused.append(f"- {name}: {row['reason']}; by leave, in float: {', '.join(row['float_operators'])}")
        cells = [
            f"{name} (wi8_ai8_mixed)" if mixed else name,
            str(row["parameters"]),
            f"{row['accuracy_fp32']:.3f}",
            f"{row['accuracy_int8']:.3f}",
        ]
        cells += [
            f"{rung['top1_agreement']:.1%} · {rung['identical_logits']:.1%} · {rung['max_abs_lsb']}" for rung in found
        ]
        met = (same_parameters(rungs), same_logits(rungs))
        if not mixed:
            kept.append(met)
        failed += [
            f"- {name}: {pair} agree on {rungs[pair]['top1_agreement']:.1%}; they part at "
            f"{rungs[pair].get('first_divergent_layer')}"
            for pair in GATED
            if rungs[pair]["top1_agreement"] < LEAST_AGREEMENT
        ]
        cells += [str(row["calibrate_and_convert_cpu_s"]), *("yes" if each else "no" for each in met)]
        print("| " + " | ".join(cells) + " |")
    alike, exact = (sum(met) for met in zip(*kept, strict=True))
    print(f"\n{len(kept)} convert as wi8_ai8; {alike} keep the same parameters, {exact} the same logits")
    print("\nParity failures:\n\n" + ("\n".join(failed) or "none"))
    print("\nRefused as wi8_ai8:\n\n" + "\n".join(refused))


if __name__ == "__main__":
    main()
