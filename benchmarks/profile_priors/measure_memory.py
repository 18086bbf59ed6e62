"""Peak memory of random students in LiteRT: VmHWM less RSS after the import.

One fresh process a student, the model read from a file, 20 inferences. Prints CSV: weights and peak live bytes of the
graph, file size, and the peak, all in bytes.

    python benchmarks/profile_priors/measure_memory.py > benchmarks/data/host_litert_memory.csv
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from measure_host import draw
from random_tflite import tflite_bytes

from edgekd.core.architecture import operator_list
from edgekd.core.operators import BYTES_PER_ELEMENT

CHILD = """
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
def status(key):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key)) * 1024
before = status("VmRSS")
interpreter = Interpreter(model_path=sys.argv[1], num_threads=1)
interpreter.allocate_tensors()
detail = interpreter.get_input_details()[0]
interpreter.set_tensor(detail["index"], np.ones(detail["shape"], detail["dtype"]))
for _ in range(20):
    interpreter.invoke()
print(status("VmHWM") - before)
"""


def main() -> None:
    print("student,scheme,weight_bytes,live_bytes,operators,file_bytes,peak_memory_bytes")
    for label, architecture in draw(24, 1):
        operators = operator_list(architecture)
        for scheme in ("wi8_ai8", "fp32"):
            content = tflite_bytes(architecture, scheme)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "student.tflite"
                path.write_bytes(content)
                done = subprocess.run(
                    [sys.executable, "-c", CHILD, str(path)], capture_output=True, text=True, check=True
                )
            live = operators.peak_live_elements() * BYTES_PER_ELEMENT[scheme]
            sizes = operators.weight_bytes(scheme), live, len(operators.operators), len(content)
            print(label, scheme, *sizes, int(done.stdout), sep=",")


if __name__ == "__main__":
    main()
