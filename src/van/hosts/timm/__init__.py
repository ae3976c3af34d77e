"""VAN in timm: importing this module registers `van_b0` … `van_b6`; see `van.py` beside it for the model."""

from __future__ import annotations

from .van import VisualAttentionNetwork, register

__all__ = ["VisualAttentionNetwork", "register"]

register()
