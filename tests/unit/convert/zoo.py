"""The benchmark's zoo, and what of it is refused."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from benchmarks.quantization.zoo import ZOO  # noqa: E402 - found by the line above

_MESSAGES = {"transformer": r"at encoder\.self_attn \(MultiheadAttention\)", "GRU": r"at gru \(GRU\)"}
FAMILIES = {name: entry for name, entry in ZOO.items() if name not in _MESSAGES}
REFUSED = {name: (*ZOO[name], message) for name, message in _MESSAGES.items()}
