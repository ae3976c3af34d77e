"""Running a network: sessions on an engine, the Predictor, evaluation; one small class per runtime in `engines`."""

from ..checkpoints.find import find_checkpoints, matching
from ..tasks.base import Engine
from .batch_backoff import BatchBackoff
from .class_names import class_names
from .description import Description
from .engines.exported import ExportedEngine, description_of, is_exported, open_exported
from .engines.torch_engine import PRECISIONS, TorchEngine
from .prefetch import default_workers, in_order, reason_of
from .session import ENGINES, Session, open_classifier, open_segmenter, open_session

__all__ = [
    "ENGINES",
    "PRECISIONS",
    "BatchBackoff",
    "Description",
    "Engine",
    "ExportedEngine",
    "Session",
    "TorchEngine",
    "class_names",
    "default_workers",
    "description_of",
    "find_checkpoints",
    "in_order",
    "is_exported",
    "matching",
    "open_classifier",
    "open_exported",
    "open_segmenter",
    "open_session",
    "reason_of",
]
