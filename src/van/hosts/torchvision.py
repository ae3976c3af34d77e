"""VAN under torchvision's detectors; nothing is registered, the model is built around the pyramid."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..detectors import DETECTORS, resolve
from ..nn.detector import detector


def create(name: str, *, seed: int | None = None, **options: Any) -> nn.Module:
    """A RetinaNet or Mask R-CNN with fresh weights, in training mode: `create("retinanet_van_b0", num_classes=3)`.

    name: a key of `detectors.DETECTORS`, or one with an alias of its backbone. options: fields of DetectorConfig, or of
    its backbone's VanConfig. seed: of the initial weights; None draws from torch's global generator.
    How it is called: `nn.detector.detector`.
    Raises UnknownNameError for a name or option that does not exist, ConfigError for impossible values,
    MissingExtraError without torchvision.
    """
    config = DETECTORS[resolve(name)].with_options(**options)
    if seed is None:
        return detector(config)
    with torch.random.fork_rng(devices=[]):  # torchvision's heads draw from the global generator; it is given back
        torch.manual_seed(seed)
        return detector(config)
