"""What travels with a model besides its weights and configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..images.preprocess import Preprocess

Palette = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, kw_only=True)
class ModelMetadata:
    """Class names, colours, preprocessing and origin of a model's weights.

    classes: one name per class in the order of the output; None where unknown.
    palette: one (R, G, B) per class, of models that paint; None where unknown.
    preprocess: how images become inputs; None for models that take no images.
    provenance: plain JSON-ready values: source, format, licence, scores, how it was trained.
    """

    classes: tuple[str, ...] | None = None
    palette: Palette | None = None
    preprocess: Preprocess | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
