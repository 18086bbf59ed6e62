"""What every record has in common."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION: Final = 1

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
PositiveInt = Annotated[int, Field(gt=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

Basis = Literal["measured", "predicted"]
RuntimeName = Literal["tflite", "onnx"]
MeasuredRuntime = Literal["tflite", "onnx", "tensorrt"]
"""What a board can be measured with. Nothing predicts TensorRT: it is measured or not judged."""


class Record(BaseModel):
    """An immutable record: unknown keys are refused, so a misspelt key is an error and never a silent default."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Estimate(Record):
    """A value that knows how sure it is. `low` and `high` bound it at `confidence`, in the same unit as `value`."""

    value: float
    low: float
    high: float
    confidence: Fraction = 0.95
    basis: Basis
    source: str = Field(description="where the number comes from, in words")
