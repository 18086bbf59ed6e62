"""From a float model to int8 files: `edgekd quantize`, and the same step of a fit."""
