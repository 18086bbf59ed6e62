"""Non-negative least squares for the few dozen rows and columns that latency models have (numpy only)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def nonnegative_least_squares(matrix: Array, target: Array, start: Array | None = None) -> Array:
    """The w >= 0 that minimises |matrix w - target|, by the active set method (Lawson and Hanson 1974, chapter 23).

    Args:
        matrix: (rows, columns).
        target: (rows,).
        start: (columns,), at least 0: where to begin. Near the solution it saves most of the work; where the solution
            is the only one it changes nothing else.

    Returns:
        (columns,), every entry at least 0.
    """
    gram, moment = matrix.T @ matrix, matrix.T @ target
    columns = len(moment)
    weights = np.zeros(columns) if start is None else start
    passive = weights > 0
    if passive.any():
        weights = _feasible_step(gram, moment, weights, passive)
    tolerance = 1e-10 * max(1.0, float(np.abs(moment).max(initial=0.0)))
    for _ in range(3 * columns):
        gradient = np.where(passive, -np.inf, moment - gram @ weights)
        best = int(np.argmax(gradient))
        if gradient[best] <= tolerance:
            break
        passive[best] = True
        weights = _feasible_step(gram, moment, weights, passive)
    return weights


def _feasible_step(gram: Array, moment: Array, weights: Array, passive: NDArray[np.bool_]) -> Array:
    """Solves on the passive set, dropping columns from it until the solution is positive. Changes `passive`."""
    while True:
        chosen = np.flatnonzero(passive)
        if not len(chosen):
            return np.zeros_like(weights)
        # A trace of ridge keeps columns that are equal to one another from making the system singular.
        block = gram[np.ix_(chosen, chosen)] + 1e-12 * np.trace(gram) / len(moment) * np.eye(len(chosen))
        solution = np.zeros_like(weights)
        solution[chosen] = np.linalg.solve(block, moment[chosen])
        if solution[chosen].min() > 0:
            return solution
        falling = chosen[solution[chosen] <= 0]
        steps = weights[falling] / np.maximum(weights[falling] - solution[falling], 1e-300)
        weights = weights + float(steps.min()) * (solution - weights)
        dropped = falling[steps <= steps.min() + 1e-12]
        weights[dropped] = 0.0
        passive[dropped] = False
