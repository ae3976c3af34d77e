"""Training of segmenters by iterations, on the same Trainer, folder and checkpoints as classifiers."""

from .export import export_segmenter, provenance_of_segmenter
from .prepare import SegmentationJob, prepare_segmentation

__all__ = ["SegmentationJob", "export_segmenter", "prepare_segmentation", "provenance_of_segmenter"]
