"""Segmentation heads: pyramid in, logits at the head's own size out."""

from .fcn import FCNHead
from .ham import HamNetHead, LightHamHead
from .semantic_fpn import FPN, SemanticFPNHead
from .upernet import UperNetHead

__all__ = ["FPN", "FCNHead", "HamNetHead", "LightHamHead", "SemanticFPNHead", "UperNetHead"]
