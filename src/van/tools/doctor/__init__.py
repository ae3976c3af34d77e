"""The doctor: reads a data set before training and says what is wrong with it, and what to do."""

from .contact_sheet import draw
from .layouts import contact_sheet_of, examine
from .report import Finding, Report
from .split_statistics import SplitStatistics

__all__ = ["Finding", "Report", "SplitStatistics", "contact_sheet_of", "draw", "examine"]
