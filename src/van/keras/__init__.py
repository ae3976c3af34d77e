"""The Visual Attention Network in Keras 3: one file for the TensorFlow, JAX and torch backends.

Set KERAS_BACKEND before Keras is first imported; nothing here imports torch unless that is the backend.
"""

from ..errors import MissingExtraError

try:
    import keras as _keras  # noqa: F401
except ImportError as error:
    if error.name in (None, "keras"):
        raise MissingExtraError.of("keras", "keras", "for van.keras") from error
    raise MissingExtraError(
        f"Keras cannot import {error.name}, which its backend needs; install it, or set KERAS_BACKEND to an "
        "installed backend (tensorflow, jax, torch) before the first import of keras"
    ) from error

from .converter import VANImageConverter
from .imagenet import decode_predictions, preprocess_input
from .model import VAN, VANBackbone, VANImageClassifier
from .weights import save

__all__ = [
    "VAN",
    "VANBackbone",
    "VANImageClassifier",
    "VANImageConverter",
    "decode_predictions",
    "preprocess_input",
    "save",
]
