"""What a user brings: the Task contract, and the tasks that are built in."""

from edgekd.tasks.contract import METRICS_OF, Development, MetricName, Outputs, Split, Task, Teacher, student_inputs
from edgekd.tasks.files import BUILT_IN, load_task
from edgekd.tasks.space import Space

__all__ = [
    "BUILT_IN",
    "METRICS_OF",
    "Development",
    "MetricName",
    "Outputs",
    "Space",
    "Split",
    "Task",
    "Teacher",
    "load_task",
    "student_inputs",
]
