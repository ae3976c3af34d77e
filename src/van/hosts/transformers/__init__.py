"""VAN in transformers 5, which removed it: importing this module registers configuration, models and processing."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import VanNotice
from .. import require_installed

require_installed("transformers")

# ruff: noqa: E402  after the check, which names the install
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from transformers import AutoBackbone, AutoConfig, AutoModel, AutoModelForImageClassification
from transformers.models.auto.auto_factory import _BaseAutoBackboneClass
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from . import conversion, processing
from .configuration import VanConfig
from .modeling import VanBackbone, VanForImageClassification, VanModel, VanPreTrainedModel

__all__ = ["VanBackbone", "VanConfig", "VanForImageClassification", "VanModel", "VanPreTrainedModel", "register"]


def register() -> None:
    """Add model type "van" to transformers' automatic classes; one that is there already stays."""
    if "van" in CONFIG_MAPPING:
        if CONFIG_MAPPING["van"] is not VanConfig:
            warnings.warn("transformers has a model type 'van' of its own, which is kept", VanNotice, stacklevel=2)
        return
    AutoConfig.register("van", VanConfig)
    AutoModel.register(VanConfig, VanModel)
    AutoModelForImageClassification.register(VanConfig, VanForImageClassification)
    AutoBackbone.register(VanConfig, VanBackbone)
    conversion.register()
    processing.register()
    _let_backbones_come_from_folders()


def _in_cache(repository: str, options: Mapping[str, Any]) -> bool:
    """Whether the hub's cache holds the configuration of a repository."""
    where = {key: options.get(key) for key in ("cache_dir", "revision")}
    file = "/".join(filter(None, (options.get("subfolder"), "config.json")))
    try:
        return isinstance(try_to_load_from_cache(repository, file, **where), str)
    except HFValidationError:  # no repository has such a name
        return False


def _let_backbones_come_from_folders() -> None:
    """Mend one method of transformers, the only thing this package changes in a host.

    `AutoBackbone.from_pretrained` asks the hub whether its argument is a repository before it reads the disk, so
    a folder, any model's, ends in an error about repository names, and a repository in the cache is out of reach
    without a network. The replacement takes folders and the cache first and leaves everything else to the original.
    """
    original = AutoBackbone.from_pretrained
    if getattr(original, "takes_folders", False):
        return

    def from_pretrained(cls: Any, name: Any, *inputs: Any, **options: Any) -> Any:
        if not Path(str(name)).is_dir() and not _in_cache(str(name), options):
            return original(name, *inputs, **options)
        options.pop("use_timm_backbone", None)
        return super(_BaseAutoBackboneClass, cls).from_pretrained(name, *inputs, **options)

    from_pretrained.takes_folders = True  # type: ignore[attr-defined]
    AutoBackbone.from_pretrained = classmethod(from_pretrained)


register()
