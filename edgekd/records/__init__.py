"""The frozen records that stages hand to one another."""

from edgekd.records.artifact import Artifact, Audit, Finding, Format, Parity, Scheme
from edgekd.records.base import Basis, Estimate, Record, RuntimeName
from edgekd.records.budget import LATENCY_PERCENTILES, Budget
from edgekd.records.candidate import Candidate
from edgekd.records.measurement import Measurement, PowerTrace, ThrottleSample
from edgekd.records.objectives import (
    OBJECTIVE_RECORDS,
    Attention,
    Dist,
    Dkd,
    Featured,
    FitNet,
    Hard,
    Hinton,
    LogitStandardization,
    Objective,
    Relational,
    record_of_kind,
)
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
    "OBJECTIVE_RECORDS",
    "Acceleration",
    "Accuracy",
    "Artifact",
    "Attention",
    "Audit",
    "Basis",
    "Budget",
    "Candidate",
    "DeviceProfile",
    "Dist",
    "Distillation",
    "Dkd",
    "Estimate",
    "Featured",
    "Finding",
    "FitNet",
    "Format",
    "Hard",
    "Hinton",
    "LatencyModel",
    "LogitStandardization",
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
    "Relational",
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
    "record_of_kind",
]
