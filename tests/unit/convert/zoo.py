"""The benchmark's zoo, and what of it is refused."""

import importlib.util
import sys
from pathlib import Path

_PATH = Path(__file__).parents[3] / "benchmarks" / "quantization" / "zoo.py"
_SPEC = importlib.util.spec_from_file_location("edgekd_benchmark_zoo", _PATH)
_MODULE = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = _MODULE
_SPEC.loader.exec_module(_MODULE)

_MESSAGES = {"transformer": r"at encoder\.self_attn \(MultiheadAttention\)", "GRU": r"at gru \(GRU\)"}
FAMILIES = {name: entry for name, entry in _MODULE.ZOO.items() if name not in _MESSAGES}
REFUSED = {name: (*_MODULE.ZOO[name], message) for name, message in _MESSAGES.items()}
