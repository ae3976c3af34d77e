"""What a network bases its answer on: Grad-CAM, the maps of large kernel attention, the effective receptive field."""

from __future__ import annotations

from .explainer import Explainer, explain
from .explanation import Explanation
from .receptive_field import ReceptiveField, effective_receptive_field

__all__ = ["Explainer", "Explanation", "ReceptiveField", "effective_receptive_field", "explain"]
