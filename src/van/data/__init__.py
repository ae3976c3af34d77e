"""Data sets: folders of images, the embedded digits, and what training does to their images."""

from ..images.preprocess import read_image as open_image
from .classification import ClassificationData, FolderData, has_own_val, open_classification
from .folder import ImageList, read_folder
from .split import stratified_split

__all__ = [
    "ClassificationData",
    "FolderData",
    "ImageList",
    "has_own_val",
    "open_classification",
    "open_image",
    "read_folder",
    "stratified_split",
]
