"""VAN in timm: importing this module registers `van_b0` … `van_b6`; see `van.py` beside it for the model."""

from __future__ import annotations

from .. import require_installed

require_installed("timm")

from .van import VisualAttentionNetwork, register  # noqa: E402  after the check, which names the install

__all__ = ["VisualAttentionNetwork", "register"]

register()
