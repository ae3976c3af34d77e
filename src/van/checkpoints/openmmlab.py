"""What the formats of OpenMMLab's tools share: `{meta, state_dict}`, or the bare state dict."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from . import python_config
from .checked import colors
from .checkpoint import Arrays, Checkpoint, Content, Palette
from .keys import KeyTable
from .reading import RECORD, describe, names, states_of

VERSIONS = ("mmseg_version", "mmcls_version", "mmpretrain_version", "mmengine_version")


def state_of(content: Content) -> dict[str, Any]:
    """The weights' entry, or the file itself when it is bare."""
    return next(iter(states_of(content.tree, "state_dict").values()))


def meta_of(content: Content) -> Mapping[str, Any]:
    """The file's `meta`; empty when there is none."""
    meta = content.tree.get("meta") if "state_dict" in content.tree else None
    return meta if isinstance(meta, Mapping) else {}


def config_of(meta: Mapping[str, Any]) -> dict[str, Any]:
    """The training configuration in `meta`: `config` in the 0.x tools, `cfg` in mmengine's."""
    return python_config.parse(meta.get("config")) or python_config.parse(meta.get("cfg"))


def classes_of(meta: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The class names in `meta`, as the 0.x tools or mmengine's put them."""
    return names(meta.get("CLASSES")) or names(_dataset(meta, "classes"))


def palette_of(meta: Mapping[str, Any]) -> Palette | None:
    """One (R, G, B) per class in `meta`, as the 0.x tools or mmengine's put them."""
    return colors(meta.get("PALETTE")) or colors(_dataset(meta, "palette"))


def _dataset(meta: Mapping[str, Any], name: str) -> Any:
    dataset = meta.get("dataset_meta")
    return dataset.get(name, dataset.get(name.upper())) if isinstance(dataset, Mapping) else None


def provenance_of(content: Content, format: str, meta: Mapping[str, Any]) -> dict[str, Any]:  # noqa: A002
    """Where the file comes from, as far as `meta` states it."""
    stated: dict[str, Any] = {"source": content.path.name, "format": format}
    for name in (*VERSIONS, "exp_name", "experiment_name", "epoch", "iter"):
        if isinstance(meta.get(name), str | int | float):
            stated[name] = meta[name]
    return stated


def refuse_ema(content: Content) -> None:
    """OpenMMLab's tools swap averaged weights into the ordinary entry when they save."""
    raise CheckpointError(
        f"{content.path} has no averaged weights of its own: OpenMMLab's tools save them as the ordinary ones; "
        "leave ema out"
    )


def write(checkpoint: Checkpoint, path: Path, table: KeyTable, arrays: Arrays, extra: Arrays) -> None:
    """Write `{meta, state_dict}` with our record in `meta`."""
    from . import torch_pickle

    meta: dict[str, Any] = {RECORD: describe(checkpoint)}
    dataset: dict[str, Any] = {}
    if checkpoint.classes is not None:
        dataset["classes"] = list(checkpoint.classes)
    if checkpoint.palette is not None:
        dataset["palette"] = [list(color) for color in checkpoint.palette]
    if dataset:
        meta |= {name.upper(): value for name, value in dataset.items()} | {"dataset_meta": dataset}
    state = OrderedDict((table.foreign(key), array) for key, array in arrays.items())
    torch_pickle.write(path, {"meta": meta, "state_dict": OrderedDict(state | extra)})
