"""What runs a network: arrays in, a dict of arrays out; one small class per runtime."""

from .description import Description
from .exported import ExportedEngine, description_of, is_exported, open_exported
from .halving import HalvingEngine
from .names import class_names
from .opened import ENGINES, Opened, open_classifier
from .ordered import default_workers, in_order, reason_of
from .segmenters import OpenedSegmenter, is_segmenter, open_segmenter
from .sources import find_checkpoints, matching
from .torch_engine import PRECISIONS, Engine, TorchEngine

__all__ = [
    "ENGINES",
    "PRECISIONS",
    "Description",
    "Engine",
    "ExportedEngine",
    "HalvingEngine",
    "Opened",
    "OpenedSegmenter",
    "TorchEngine",
    "class_names",
    "default_workers",
    "description_of",
    "find_checkpoints",
    "in_order",
    "is_exported",
    "is_segmenter",
    "matching",
    "open_classifier",
    "open_exported",
    "open_segmenter",
    "reason_of",
]
