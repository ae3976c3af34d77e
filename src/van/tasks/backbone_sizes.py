"""Whether the backbone of a checkpoint can serve in the network that a recipe names."""

from __future__ import annotations

from ..configs.backbone import VanConfig
from ..errors import ConfigError
from ..recipes.model_spec import BaseModelSpec

# What a checkpoint's backbone and the model on it must share; strides are the model's own.
_SIZES = ("embed_dims", "depths", "mlp_ratios", "patch_sizes", "in_chans", "kernel_size", "dilation", "attention")


def require_same_sizes(wanted: VanConfig, found: VanConfig, spec: BaseModelSpec) -> None:
    """Raises ConfigError where the backbone that was found cannot serve as the one that is wanted."""
    for name in _SIZES:
        if getattr(wanted, name) != getattr(found, name):
            raise ConfigError(
                f"{spec.checkpoint} has {name} {getattr(found, name)}, {spec.name} needs {getattr(wanted, name)}; "
                "take the recipe of the checkpoint's size, or set model.* to its values"
            )
