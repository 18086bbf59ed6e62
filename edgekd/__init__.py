"""Distill, quantize, deploy and measure the most accurate student that meets a board's budget."""

__version__ = "0.1.0"
