"""The frozen records that stages hand to one another."""

from edgekd.records.artifact import Artifact, Audit, Finding, Format, Parity, Scheme
from edgekd.records.base import Basis, Estimate, Record, RuntimeName
from edgekd.records.budget import LATENCY_PERCENTILES, Budget
from edgekd.records.candidate import Candidate
from edgekd.records.measurement import Measurement, PowerTrace, ThrottleSample
from edgekd.records.plan import MeasurementPlan, PlanName, named_plan
from edgekd.records.profile import (
    Acceleration,
    DeviceProfile,
    LatencyModel,
    Match,
    OperatingPoint,
    OperatorCost,
    Platform,
    Sensor,
    Soc,
    Sourced,
)
from edgekd.records.recipe import (
    Distillation,
    Objective,
    Quantization,
    Recipe,
    StudentChoice,
    TaskChoice,
    Training,
)
from edgekd.records.report import Accuracy, Report, Stage
from edgekd.records.verdict import Outcome, Verdict

__all__ = [
    "LATENCY_PERCENTILES",
    "Acceleration",
    "Accuracy",
    "Artifact",
    "Audit",
    "Basis",
    "Budget",
    "Candidate",
    "DeviceProfile",
    "Distillation",
    "Estimate",
    "Finding",
    "Format",
    "LatencyModel",
    "Match",
    "Measurement",
    "MeasurementPlan",
    "Objective",
    "OperatingPoint",
    "OperatorCost",
    "Outcome",
    "Parity",
    "PlanName",
    "Platform",
    "PowerTrace",
    "Quantization",
    "Recipe",
    "Record",
    "Report",
    "RuntimeName",
    "Scheme",
    "Sensor",
    "Soc",
    "Sourced",
    "Stage",
    "StudentChoice",
    "TaskChoice",
    "ThrottleSample",
    "Training",
    "Verdict",
    "named_plan",
]
