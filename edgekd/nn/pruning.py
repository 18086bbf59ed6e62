"""Structured pruning: whole channels are taken out, with everything that depends on them, so that the network shrinks.

Groups of dependent channels, and their importance (the norm of all weights of a group), are those of DepGraph (Fang et
al. 2023, arXiv:2301.12900), by the package torch-pruning.
"""

from __future__ import annotations

import copy
import importlib
import logging
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor, nn

from edgekd.errors import BuildError, MissingExtraError

_STEPS = 40
"""The share of channels rises in so many steps, and importance is taken anew at each."""
_MOST_OF_ALL, _MOST_OF_A_LAYER = 0.95, 0.85
_ROOTS = (nn.modules.conv._ConvNd, nn.Linear)
# torch-pruning raises what its tracing happens to run into; where it does, a layer is simply left as it is.
_TRACING_ERRORS = (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, AssertionError)
logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Pruned:
    """A smaller copy of a module, in inference mode, with what is left of the same weights.

    `left_alone` names the layers whose channels could not be taken: the output's, and those torch-pruning cannot trace.
    """

    model: nn.Module
    parameters_before: int
    parameters: int
    left_alone: tuple[str, ...]


def prune(model: nn.Module, example: Tensor, share: float) -> Pruned:
    """Take out the least important channels, over all layers, until `share` of the parameters is gone.

    Args:
        model: from (N, ...) to (N, classes); left as it is.
        example: one input, (1, ...) float32, on the model's device.
        share: of the parameters, above 0 and below 1. Whole channels go, so a little more may.

    Raises:
        BuildError: so many cannot be taken out; the message says how many can, and which layers must stay.
        MissingExtraError: torch-pruning is not installed.
    """
    pruning = _torch_pruning()
    smaller = copy.deepcopy(model).eval().requires_grad_()
    left_alone = _unprunable(pruning, smaller, example)
    before = _parameters(smaller)
    pruner = pruning.pruner.BasePruner(
        smaller,
        example,
        importance=pruning.importance.GroupMagnitudeImportance(p=2),
        global_pruning=True,
        pruning_ratio=_MOST_OF_ALL,
        max_pruning_ratio=_MOST_OF_A_LAYER,
        iterative_steps=_STEPS,
        ignored_layers=[smaller.get_submodule(name) for name in left_alone],
    )
    wanted = (1.0 - share) * before
    for _ in range(_STEPS):
        if _parameters(smaller) <= wanted:
            break
        pruner.step()
    after = _parameters(smaller)
    if after > wanted:
        kept = ", ".join(left_alone)
        raise BuildError(
            f"pruning takes out {before - after} of {before} parameters at most ({1 - after / before:.0%}), not "
            f"{share:.0%}: ask for less. The channels of {kept} cannot be taken"
        )
    return Pruned(smaller, before, after, left_alone)


def _torch_pruning() -> ModuleType:
    try:
        return importlib.import_module("torch_pruning")
    except ModuleNotFoundError as error:
        raise MissingExtraError("torch_pruning", "prune") from error


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _unprunable(pruning: ModuleType, model: nn.Module, example: Tensor) -> tuple[str, ...]:
    """Layers without which the output changes its shape, or the module no longer runs: found by trying one channel."""
    with torch.no_grad():
        expected = model(example).shape
    roots = [name for name, module in model.named_modules() if isinstance(module, _ROOTS)]
    return tuple(name for name in roots if not _can_lose_a_channel(pruning, model, example, name, expected))


def _can_lose_a_channel(
    pruning: ModuleType, model: nn.Module, example: Tensor, name: str, expected: torch.Size
) -> bool:
    trial = copy.deepcopy(model)
    layer = trial.get_submodule(name)
    take = pruning.prune_linear_out_channels if isinstance(layer, nn.Linear) else pruning.prune_conv_out_channels
    try:
        graph = pruning.DependencyGraph().build_dependency(trial, example_inputs=example)
        graph.get_pruning_group(layer, take, idxs=[0]).prune()
        with torch.no_grad():
            return bool(trial(example).shape == expected)
    except _TRACING_ERRORS as error:
        logger.debug("%s keeps its channels: %s", name, error)
        return False
