"""The doctor: reads a segmentation data set before training and says what is wrong with it, and what to do."""

from .contact_sheet import draw
from .examine import Report, examine
from .findings import Finding
from .split_statistics import Part

__all__ = ["Finding", "Part", "Report", "draw", "examine"]
