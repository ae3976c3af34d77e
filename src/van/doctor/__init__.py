"""The doctor: reads a segmentation data set before training and says what is wrong with it, and what to do."""

from .examine import Report, examine
from .findings import Finding
from .part import Part
from .sheet import draw

__all__ = ["Finding", "Part", "Report", "draw", "examine"]
