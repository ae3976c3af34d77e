"""From a configuration to its model: the one table of what is built for which configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..configs.backbone import VanConfig
from ..configs.dfine import DFineConfig
from ..configs.mask2former import InstanceMask2FormerConfig, Mask2FormerConfig
from ..configs.mask_rcnn import CascadeMaskRCNNConfig, MaskRCNNConfig
from ..configs.model_config import ModelConfig
from ..configs.retinanet import RetinaNetConfig
from ..configs.segmenter import SegmenterConfig
from ..errors import ConfigError
from .classifier import Classifier
from .detection.dfine import DFine
from .detection.mask2former import Mask2Former
from .detection.mask_rcnn import MaskRCNN
from .detection.retinanet import RetinaNet
from .segmenter import Segmenter

# Class of a configuration -> what builds its model; `tasks.register` adds to it.
BUILDERS: dict[type[ModelConfig], Callable[[Any], nn.Module]] = {
    VanConfig: Classifier,
    SegmenterConfig: Segmenter,
    RetinaNetConfig: RetinaNet,
    MaskRCNNConfig: MaskRCNN,
    CascadeMaskRCNNConfig: MaskRCNN,
    DFineConfig: DFine,
    Mask2FormerConfig: Mask2Former,
    InstanceMask2FormerConfig: Mask2Former,
}


def built_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of a configuration's model, which is built on the meta device."""
    with torch.device("meta"):
        model = build(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def build(config: ModelConfig) -> nn.Module:
    """The model of a configuration, its weights drawn from torch's global generator.

    Raises ConfigError for a kind of configuration that nothing is known to be built for.
    """
    if type(config) not in BUILDERS:
        known = ", ".join(kind.__name__ for kind in BUILDERS)
        raise ConfigError(f"no model is known for a {type(config).__name__}; expected one of {known}")
    return BUILDERS[type(config)](config)
