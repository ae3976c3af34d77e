"""tfvan, the second Keras port: its `.h5`, read and written.

Keras 2's `save_weights` (see `keras_layers`) of a functional model with composite layers:

    patch_embed{i}  proj/{kernel,bias}, norm/{gamma,beta,moving_mean,moving_variance}
    block{i}.{j}    layer_scale_1, layer_scale_2 (1, 1, 1, C); norm1/…; attn/{proj_1,proj_2}/{kernel,bias};
                    attn/spatial_gating_unit/{conv0,conv_spatial}/{depthwise_kernel,bias}, …/conv1/{kernel,bias};
                    norm2/…; mlp/{fc1,fc2}/{kernel,bias}; mlp/dwconv.dwconv/{depthwise_kernel,bias}
    norm{i}         gamma, beta
    head            kernel, bias

A weight's name is `LAYER/…:0`. In a layer the trained weights come first, then the statistics of its batch norms; Keras
assigns by that order. LayerNorm's epsilon is 1.001e-5, BatchNorm's too, which no weights of training size show.
Depthwise kernels are (kh, kw, C, 1). Our own record is the root attribute `van`, which Keras ignores.
Sources: tfvan 1.0.0, its convert_weights.py, and files that it wrote.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..configs.backbone import VanConfig
from ..errors import CheckpointError
from ..files import atomic_output
from ..images.preprocess import OFFICIAL
from . import hdf5, keras_layers, keys, layout
from .checkpoint import Checkpoint, Content
from .keras import from_keras, to_keras
from .limits import ReadBack, beyond_original, extra_tensors, no_counters
from .reading import COUNTER, RECORD, ParsedCheckpoint, assemble, describe, parse_record

LINEAGE = {"layer_norm_eps": 1.001e-5}
LAYOUT = "tfvan, the second Keras port (Keras 2's .h5)"
_BLOCK = re.compile(r"(.*/)?block\d+\.\d+/")
_STATISTICS = ("moving_mean:0", "moving_variance:0")
_LEAVES = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
_SCALE = re.compile(r".*\.scale[12]")


def detect(content: Content) -> bool:
    """Keras 2's layers with a dot between the numbers of stage and block."""
    if content.container != "hdf5":
        return False
    with keras_layers.opened(content) as file:
        if not {"layer_names", "layer_names0", "model_weights"} & {*file.attrs, *file}:
            return False
        keras_layers.datasets(file)  # refuses links, before one is followed
        layers = keras_layers.layers_of(file)
    return layers is not None and any(_BLOCK.match(name) for names in layers.weights.values() for name in names)


def read(content: Content, *, ema: bool, known: Mapping[str, Any]) -> Checkpoint:
    """See checkpoint.Format."""
    if ema:
        raise CheckpointError(f"{content.path} holds no averaged weights (tfvan's files never do); leave ema out")
    with keras_layers.opened(content) as file:
        found = keras_layers.datasets(file)
        layers = keras_layers.layers_of(file)
        if layers is None:
            raise CheckpointError(f"{content.path} names no layers")
        state = keras_layers.read(file, layers, found, _normalised)
        arrays = {key: _to_ours(key, np.asarray(data[()])) for key, data in state.items()}
        stated = hdf5.attribute(file, RECORD) if RECORD in file.attrs else None
    parsed = ParsedCheckpoint(format="tfvan", state=arrays, table=TFVAN, lineage=LINEAGE, statistics=OFFICIAL)
    parsed.provenance = {"source": content.path.name, "format": "tfvan", "layout": LAYOUT}
    parsed.record = parse_record(stated, content.path)
    return assemble(parsed, content, known)


def write(checkpoint: Checkpoint, path: Path) -> list[str]:
    """See checkpoint.Format; our record rides along as an attribute of the file."""
    h5py, config = keras_layers.h5py(), checkpoint.classifier
    with atomic_output(path, error=CheckpointError) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["backend"], file.attrs["keras_version"] = b"tensorflow", b"2.9.0"
        file.attrs[RECORD] = json.dumps(describe(checkpoint, counters=True))
        keras_layers.write(file, _layers(checkpoint, config))
    lost: list[str] = []
    if not path.name.endswith(".h5"):
        lost.append(ReadBack(f"the name {path.name}: Keras loads names that end in .h5"))
    lost += no_counters(checkpoint, "tfvan")
    lost += beyond_original(checkpoint, "tfvan", "patch_sizes", "strides", layer_norm_eps=LINEAGE["layer_norm_eps"])
    return lost + extra_tensors(checkpoint)


def _layers(checkpoint: Checkpoint, config: VanConfig) -> dict[str, dict[str, np.ndarray]]:
    """Layer -> weights as tfvan's own file has them, layers without weights included."""
    layers: dict[str, dict[str, np.ndarray]] = {"input_1": {}}
    for stage in range(config.num_stages):  # of a stage the norm comes last
        own = [key for key in layout.shapes(config) if key.startswith(f"backbone.stages.{stage}.")]
        for key in own:
            if not key.endswith(COUNTER):
                name = f"{TFVAN.foreign(key)}:0"
                layers.setdefault(name.split("/")[0], {})[name] = _to_theirs(key, checkpoint.arrays[key])
    if config.num_classes:
        layers["avg_pool"] = {}
        layers["head"] = {
            f"{TFVAN.foreign(key)}:0": to_keras(key, checkpoint.arrays[key]) for key in ("head.weight", "head.bias")
        }
        layers["pred"] = {}
    return {layer: _ordered(weights) for layer, weights in layers.items()}


def _ordered(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return dict(sorted(weights.items(), key=lambda item: item[0].endswith(_STATISTICS)))


@dataclass(frozen=True)
class TfvanTable(keys.KeyTable):
    """tfvan's spelling, `block1.0/attn/proj_1/kernel`, without the `:0` behind it."""

    def canonical(self, key: str) -> str | None:
        module, _, leaf = key.rpartition("/")
        theirs = _LEAVES | {"kernel": "weight", "depthwise_kernel": "weight"}
        ours = super().canonical(f"{module}.{theirs.get(leaf, leaf)}".replace("/", "."))
        return ours if ours and self.foreign(ours) == key else None

    def foreign(self, key: str) -> str:
        module, _, leaf = super().foreign(key).rpartition(".")
        if re.search(r"norm\d?$", module):
            leaf = {ours: theirs for theirs, ours in _LEAVES.items()}.get(leaf, leaf)
        elif leaf == "weight":
            leaf = "depthwise_kernel" if module.endswith(("conv0", "conv_spatial", "dwconv.dwconv")) else "kernel"
        path = re.sub(r"^block(\d+)/(\d+)", r"block\1.\2", module.replace(".", "/"))
        return f"{path.replace('dwconv/dwconv', 'dwconv.dwconv')}/{leaf}"


TFVAN = TfvanTable(keys.OFFICIAL.rows)


def _normalised(weight: str) -> str:
    """`van_tiny/block1.0/mlp_1/fc1/kernel:0` -> `block1.0/mlp/fc1/kernel`: no outer model, no count of the session."""
    weight = re.sub(r"/mlp_\d+/", "/mlp/", weight.removesuffix(":0"))
    ours = r"(?:patch_embed\d+|block\d+\.\d+|norm\d+|head)/"
    return re.sub(rf"^(?:(?!{ours})[^/]+/)+(?={ours})", "", weight)


def _to_ours(key: str, array: np.ndarray) -> np.ndarray:
    ours = TFVAN.canonical(key) or ""
    if _SCALE.fullmatch(ours):
        return array.reshape(-1) if array.shape[:-1] == (1, 1, 1) else array
    return from_keras(ours, array) if ours.endswith(".weight") else array


def _to_theirs(key: str, array: np.ndarray) -> np.ndarray:
    return array.reshape(1, 1, 1, -1) if _SCALE.fullmatch(key) else to_keras(key, array)
