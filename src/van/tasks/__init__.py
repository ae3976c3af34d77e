"""What models are for: one folder per task, one contract (`base.py`), and the table of the tasks that are known.

Importing this package imports no torch: a task's members import what they need when they are called.
"""

from __future__ import annotations

from .base import Task
from .registry import TASKS, described, parse_options, register, task_named, task_of

__all__ = ["TASKS", "Task", "described", "parse_options", "register", "task_named", "task_of"]
