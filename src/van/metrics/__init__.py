"""Figures of merit, class by class and overall; numpy alone."""

from .class_plan import ClassPlan, plan_classes
from .classification import ClassificationMeter, ClassScore, RealMeter, confusion_matrix
from .real_labels import RealLabels

__all__ = [
    "ClassPlan",
    "ClassScore",
    "ClassificationMeter",
    "RealLabels",
    "RealMeter",
    "confusion_matrix",
    "plan_classes",
]
