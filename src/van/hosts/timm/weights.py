"""What timm knows about VAN's published weights, and how any of their formats gets into its model."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from timm.models import adapt_input_conv, generate_default_cfgs
from torch import Tensor

from ... import checkpoints
from ...checkpoints import Checkpoint
from ...checkpoints.timm_config import FIRST_CONV, HEAD, preprocessing
from ...configs.backbone import VARIANTS, name_of
from ...configs.published_weights import WEIGHTS, Weight, by_hub_id
from ...errors import CheckpointError, VanError, VanNotice
from ...images import preprocess
from ..state_dicts import is_foreign, read_state, tensors, use_epsilon_of

if TYPE_CHECKING:
    from .van import VisualAttentionNetwork


def default_cfgs() -> Any:
    """timm's record of every variant: where weights are, and the preprocessing they were evaluated with.

    B0–B3 come from the hub in transformers' layout, whose processor files contradict the evaluation protocol; timm
    gets the protocol's values. B5 and B6 were published for ImageNet-22K only, and ask for their tag.
    """
    records = {}
    for name in VARIANTS:
        rows = {row.name: row for row in WEIGHTS if row.model == name}
        hub, in1k, in21k = (rows.get(key) for key in (f"hub/{name}", f"openmmlab/{name}", f"openmmlab/{name}_in21k"))
        if in21k:
            records[f"{name}.in21k"] = _record(in21k, preprocess.IMAGENET, num_classes=0, **_download(in21k))
        if hub:
            records[f"{name}.in1k*"] = _record(hub, preprocess.OFFICIAL, hf_hub_id=hub.repo)
        elif in1k:
            records[f"{name}.in1k*"] = _record(in1k, preprocess.OFFICIAL, **_download(in1k))
        else:
            records[f"{name}.untrained*"] = _record(None, preprocess.OFFICIAL)  # the star makes it the default
    return generate_default_cfgs(records)


def _download(row: Weight) -> dict[str, Any]:
    return {"url": row.url, "custom_load": True}  # to VisualAttentionNetwork.load_pretrained, so through our reader


def _record(row: Weight | None, used: preprocess.Preprocess, **source: Any) -> dict[str, Any]:
    return {
        "url": "",
        "num_classes": 1000,
        **preprocessing(used),
        "pool_size": (7, 7),
        "first_conv": FIRST_CONV,
        "classifier": HEAD,
        "license": row.licence if row else None,
        "paper_ids": "arXiv:2202.09741",
        "paper_name": "Visual Attention Network",
        "origin_url": "https://github.com/Visual-Attention-Network",
        **source,
    }


def checkpoint_filter_fn(
    state_dict: Mapping[str, Any], model: VisualAttentionNetwork, cache_dir: str | Path | None = None
) -> dict[str, Tensor]:
    """The state under our keys, whatever published format it came in; epsilon and preprocessing are taken along.

    timm decides by `pretrained_cfg` whether the file's head and first convolution fit the model. It is the default's
    or the user's and may be wrong, so it gets the numbers of the file that is being loaded.
    """
    cfg = getattr(model, "pretrained_cfg", None)
    source = _source(cfg, cache_dir) if isinstance(cfg, dict) else None
    state = translated(state_dict, model, source)
    if isinstance(cfg, dict):
        if f"{HEAD}.weight" in state:
            expected, cfg["num_classes"] = cfg.get("num_classes"), len(state[f"{HEAD}.weight"])
            if model.num_classes == expected:  # another number was asked for, and gets a fresh head as in all of timm
                _say_when_the_head_differs(cfg["num_classes"], model.num_classes)
        if f"{FIRST_CONV}.weight" in state:
            cfg["input_size"] = (state[f"{FIRST_CONV}.weight"].shape[1], *cfg.get("input_size", (3, 224, 224))[1:])
        if source is not None:
            cfg |= {
                name: value
                for name, value in _record_fields(source).items()
                if cfg.get(name) in _DEFAULTS.get(name, (None,))
            }
    return state


# What timm's record says of preprocessing by default.
_DEFAULTS = {
    name: [preprocessing(used)[name] for used in (preprocess.OFFICIAL, preprocess.IMAGENET)]
    for name in preprocessing(preprocess.OFFICIAL)
}


def _source(cfg: Mapping[str, Any], cache_dir: str | Path | None) -> Checkpoint | None:
    """The checkpoint, with its own record, of which timm hands over the bare tensors.

    None for published weights, which timm's record describes, for folders that timm builds from, and for what only
    timm can read.
    """
    file, repository = cfg.get("file"), cfg.get("hf_hub_id")
    if cfg.get("source") or not (file or repository):
        return None
    try:
        if file:
            return checkpoints.read(file).as_classifier()
        from ...checkpoints.hub import download, reference  # the hub's client is slow to import

        named = f"hf://{repository}" + (f"/{cfg['hf_hub_filename']}" if cfg.get("hf_hub_filename") else "")
        if by_hub_id(reference(named).repo) is not None:
            return None
        return checkpoints.read(download(named, cache=cache_dir)).as_classifier()
    except VanError:
        return None


def translated(
    state_dict: Mapping[str, Any], model: VisualAttentionNetwork, source: Checkpoint | None = None
) -> dict[str, Tensor]:
    """The state under our keys; the backbone gets the epsilon that the source names, else that of a foreign format.

    What the user asked for wins over both.
    """
    checkpoint = read_state(state_dict) if is_foreign(state_dict) else None
    if (known := source or checkpoint) is not None:
        use_epsilon_of(model.backbone, known, epsilon=not model.epsilon_was_given)
    return tensors(checkpoint) if checkpoint is not None else dict(state_dict)


def translate_hook(module: VisualAttentionNetwork, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Before `load_state_dict`: rename the keys of a foreign format in place; ours pass untouched."""
    own = {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)}
    if is_foreign(own):
        for key in own:
            del state_dict[prefix + key]
        state_dict.update({prefix + key: value for key, value in translated(own, module).items()})


def _say_when_the_head_differs(theirs: int, ours: int) -> None:
    if ours and theirs != ours:
        warnings.warn(
            f"the file's head has {theirs} classes, the model's {ours}; the new head is random", VanNotice, stacklevel=4
        )


def load_compatible_state_dict(model: VisualAttentionNetwork, checkpoint: Checkpoint) -> None:
    """Load a checkpoint into the timm model, adapting the first convolution and leaving a head that differs."""
    checkpoint = checkpoint.as_classifier()
    ours, theirs = model.config, checkpoint.classifier
    if name_of(ours) != name_of(theirs) or (ours.embed_dims, ours.depths) != (theirs.embed_dims, theirs.depths):
        raise CheckpointError(
            f"the file holds {name_of(theirs)} (widths {theirs.embed_dims}, depths {theirs.depths}), the model is "
            f"{name_of(ours)} ({ours.embed_dims}, {ours.depths}); create the file's variant"
        )
    state = tensors(checkpoint)
    if theirs.in_chans != ours.in_chans:
        state[f"{FIRST_CONV}.weight"] = _adapted(state[f"{FIRST_CONV}.weight"], ours.in_chans)
    if theirs.num_classes != ours.num_classes:
        state = {key: value for key, value in state.items() if not key.startswith(f"{HEAD}.")}
        state |= {f"{HEAD}.{key}": value for key, value in model.head.state_dict().items()}
        _say_when_the_head_differs(theirs.num_classes, ours.num_classes)
    use_epsilon_of(model.backbone, checkpoint)
    model.load_state_dict(state)
    cfg = getattr(model, "pretrained_cfg", None)
    if isinstance(cfg, dict):
        cfg |= {"num_classes": theirs.num_classes, **_record_fields(checkpoint)}


def _record_fields(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a checkpoint states besides its tensors, as timm's fields."""
    names = {"label_names": list(checkpoint.classes)} if checkpoint.classes else {}
    return {**preprocessing(checkpoint.preprocess), **names}


def _adapted(weight: Tensor, in_chans: int) -> Tensor:
    if weight.shape[1] != 3:
        raise CheckpointError(
            f"the file's network takes {weight.shape[1]} channels, the model {in_chans}; adapt from 3"
        )
    with torch.no_grad():
        return adapt_input_conv(in_chans, weight)
