"""Running a network: sessions on an engine, the Predictor, evaluation; one small class per runtime in `engines`."""

from ..checkpoints.find import find_checkpoints, matching
from .batch_backoff import HalvingEngine
from .class_names import class_names
from .description import Description
from .engines.exported import ExportedEngine, description_of, is_exported, open_exported
from .engines.torch_engine import PRECISIONS, Engine, TorchEngine
from .prefetch import default_workers, in_order, reason_of
from .segmenter_session import OpenedSegmenter, is_segmenter, open_segmenter
from .session import ENGINES, Opened, open_classifier

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
