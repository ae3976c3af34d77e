"""Torch modules: the network itself. One device, no files, no names of models."""

from . import fused as fused  # swaps forwards for kernels
from .backbone import Backbone
from .classifier import Classifier
from .fold import fold, is_folded
from .model import Model
from .optimize import optimize
from .test_time_pool import TestTimePool

__all__ = ["Backbone", "Classifier", "Model", "TestTimePool", "fold", "is_folded", "optimize"]
