"""What may be asked of quantization beside its scheme: flags over a recipe, and what cannot be meant."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from edgekd.errors import BuildError, ConfigurationError
from edgekd.records import INT8_SCHEMES, Qat, Quantization, Recipe, Scheme


@dataclass(frozen=True)
class QuantizationFlags:
    """What the command line says of quantization; None, and a switch that is not given, leave the recipe's."""

    qat: Qat | None = None
    steps: Literal["observed", "learned"] | None = None
    mixed: bool = False
    allow_float_ops: bool = False
    float_io: bool = False
    opset: int | None = None

    def over(self, recipe: Recipe) -> Recipe:
        """The recipe with these flags over it."""
        given = {name: value for name, value in asdict(self).items() if value is not None and value is not False}
        return recipe.model_copy(update={"quantize": recipe.quantize.model_copy(update=given)}) if given else recipe


def lowered_scheme(scheme: Scheme, recipe: Quantization) -> Scheme:
    """The scheme with leave to keep in float what has no int8 form, where that is given."""
    return "wi8_ai8_mixed" if recipe.allow_float_ops else scheme


def require_consistent(scheme: Scheme, recipe: Quantization) -> None:
    """Refuse what cannot be meant together, before anything takes time.

    Raises:
        ConfigurationError: a flag that the scheme or another flag does not take, or an unknown opset.
        MissingExtraError: `onnx` is not installed, and an opset is asked for.
    """
    from edgekd.convert.onnx_writer import require_opset
    from edgekd.nn.quantized.scheme import SCHEMES

    if (recipe.mixed or recipe.allow_float_ops) and scheme not in INT8_SCHEMES:
        flag = "--mixed" if recipe.mixed else "--allow-float-ops"
        raise ConfigurationError(f"{flag} keeps single layers in float, which only wi8_ai8 does, not {scheme}")
    if recipe.float_io and SCHEMES[scheme].activation_bits is None:
        raise ConfigurationError(f"{scheme} files have float inputs and outputs anyway: leave out --float-io")
    if recipe.steps == "learned" and recipe.qat == "never":
        raise ConfigurationError("--steps learned says how QAT finds its ranges, but --qat never leaves it out")
    try:
        require_opset(scheme, recipe.opset)
    except BuildError as error:
        raise ConfigurationError(f"--{error}") from error
