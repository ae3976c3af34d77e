"""Keras weight files: the old TensorFlow port's `.h5` (read) and Keras 3's `.weights.h5` (read and written).

The port (`save_weights` of Keras 2): one group per top layer, named by the root attribute `layer_names`; each group's
attribute `weight_names` gives the data sets in it, e.g. `block1/0/block1/0/mlp/fc1/conv2d_6/kernel:0`. The `conv2d_N`
level counts what was built before and is ignored.
Keras 3: `layers/<class>[_<count>]/<attribute>/…/vars/<index>`; a group `vars` carries its layer's name, which alone
identifies the stage. Its layers, as this package defines them (batch norms: gamma, beta, mean, variance):

    patch_embed{i}  PatchEmbed: proj (Conv2D), norm (BatchNormalization)
    block{i}_{j}    Block: norm1, attn (proj_1, spatial_gating_unit (conv0, conv_spatial, conv1), proj_2), norm2,
                    mlp (fc1, dwconv, fc2); its own variables 0 and 1 are layer_scale_1 and layer_scale_2
    norm{i}         LayerNormalization
    head            Dense

Depthwise kernels are (kh, kw, C, 1) there (DepthwiseConv2D) and (kh, kw, 1, C) in the port (grouped Conv2D).
Our own record is the root attribute `van`, which Keras ignores. LayerNorm's epsilon is 1e-6 where nothing is recorded.
Sources: EMalagoli92/VAN-Classification-TensorFlow; keras/src/saving of Keras 3.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..configs.backbone import VanConfig
from ..errors import CheckpointError
from ..files import atomic_output, parse_json, read_json
from ..images.preprocess import OFFICIAL
from . import checked, folders, hdf5, keras_layers, keys, layout
from .checkpoint import Arrays, Checkpoint, Content
from .files import bfloat16_note
from .limits import ReadBack, beyond_original, extra_tensors, no_counters
from .reading import RECORD, ParsedCheckpoint, assemble, describe

LINEAGE = {"layer_norm_eps": 1e-6}
COUNTER = "num_batches_tracked"
_ARCHITECTURE = {"embed_dims", "depths", "mlp_ratios", "layer_norm_eps"}  # what the arguments of a VAN name
# Keras's class of a top layer in snake case, by the layer's name without its numbers.
CLASSES = {"patch_embed": "patch_embed", "block": "block", "norm": "layer_normalization", "head": "dense"}
LEAVES = ("weight", "bias", "running_mean", "running_var")  # in the order of Keras's variables
_DEPTHWISE = r".*\.(near|far|depthwise)\.weight"


def detect(content: Content) -> bool:
    """Every HDF5 file is Keras's or nobody's; `read` says which."""
    return content.container == "hdf5"


def read(content: Content, *, ema: bool, known: Mapping[str, Any]) -> Checkpoint:
    """See checkpoint.Format."""
    if ema:
        raise CheckpointError(f"{content.path} holds no averaged weights (Keras files never do); leave ema out")
    with keras_layers.opened(content) as file:
        found = _found(file, content.path)
    if content.metadata:
        _apply_model(found, content.metadata["config"])
        _add_preset_head(found, content)
    elif found.record is None and found.table is KERAS_3:
        found.notes.append(
            "the file does not contain its attention, epsilon and strides; the published ones are used. The .keras "
            "file that it comes from has them"
        )
    return assemble(found, content, known)


def write(checkpoint: Checkpoint, path: Path) -> list[str]:
    """Write Keras 3's `.weights.h5`; see checkpoint.Format."""
    h5py = keras_layers.h5py()
    config = checkpoint.classifier
    with atomic_output(path, error=CheckpointError) as temporary, h5py.File(temporary, "w") as file:
        file.attrs[RECORD] = json.dumps(describe(checkpoint, counters=True))
        _named(file, "", checkpoint.name)
        groups: dict[str, str] = {}
        for key in layout.shapes(config):
            if not key.endswith(COUNTER):
                layer, _, rest = KERAS_3.foreign(key).partition("/")
                if layer not in groups:
                    groups[layer] = _group_of(layer, list(groups))
                _make_levels(file, groups[layer], layer, rest)
                file[f"{groups[layer]}/{rest}"] = to_keras(key, checkpoint.arrays[key])
    lost: list[str] = []
    if not path.name.endswith(".weights.h5"):
        lost.append(ReadBack(f"the name {path.name}: Keras loads names that end in .weights.h5"))
    lost += no_counters(checkpoint, "Keras")
    who = "a Keras model of the published design"
    lost += beyond_original(checkpoint, who, "patch_sizes", "strides", layer_norm_eps=LINEAGE["layer_norm_eps"])
    return lost + extra_tensors(checkpoint)


@dataclass(frozen=True)
class PortTable(keys.KeyTable):
    """The port's spelling: the official names with slashes, `block1/0/norm1/gamma`."""

    def canonical(self, key: str) -> str | None:
        module, _, leaf = key.rpartition("/")
        theirs = {"kernel": "weight", "gamma": "weight", "beta": "bias"}
        theirs |= {"moving_mean": "running_mean", "moving_variance": "running_var"}
        ours = super().canonical(f"{module}/{theirs.get(leaf, leaf)}".replace("/", "."))
        return ours if ours and self.foreign(ours) == key else None  # `head/gamma` is no head

    def foreign(self, key: str) -> str:
        module, _, leaf = super().foreign(key).rpartition(".")
        theirs = {"running_mean": "moving_mean", "running_var": "moving_variance", "weight": "kernel"}
        if re.search(r"norm\d?$", module):
            theirs |= {"weight": "gamma", "bias": "beta"}
        return f"{module}.{theirs.get(leaf, leaf)}".replace(".", "/")


@dataclass(frozen=True)
class Keras3Table(keys.KeyTable):
    """Paths below `layers`, the group's name replaced by its layer's: `block1_0/norm1/vars/0`."""

    def canonical(self, key: str) -> str | None:
        match = re.fullmatch(rf"(?P<module>.+)/(?:vars/(?P<k>[0-3])|(?P<counter>{COUNTER}))", key)
        if match is None:
            return None
        module = re.sub(r"^block(\d+)_(\d+)", r"block\1.\2", match["module"])
        leaf = match["counter"] or LEAVES[int(match["k"])]
        if re.fullmatch(r"block\d+\.\d+", module):
            leaf = f"layer_scale_{int(match['k'] or 0) + 1}"
        ours = super().canonical(f"{module}.{leaf}".replace("/", "."))
        return ours if ours and self.foreign(ours) == key else None

    def foreign(self, key: str) -> str:
        module, _, leaf = super().foreign(key).rpartition(".")
        module = re.sub(r"^block(\d+)\.(\d+)", r"block\1_\2", module).replace(".", "/")
        if leaf.startswith("layer_scale_"):
            return f"{module}/vars/{int(leaf[-1]) - 1}"
        return f"{module}/vars/{LEAVES.index(leaf)}" if leaf in LEAVES else f"{module}/{leaf}"


PORT = PortTable(keys.OFFICIAL.rows)
KERAS_3 = Keras3Table(keys.ONE_LEVEL.rows)


def _found(file: Any, path: Path) -> ParsedCheckpoint:
    datasets = keras_layers.datasets(file)
    record = _record(file)
    state: dict[str, Any]
    table: keys.KeyTable
    layers = keras_layers.layers_of(file)
    if layers is not None:
        state = keras_layers.read(file, layers, datasets, _normalised)
        table, kind = PORT, "the TensorFlow port's .h5"
    elif any(re.match(r"(.*/)?layers/", name) for name in datasets):
        state, table, kind = _read_keras_3(file, datasets), KERAS_3, "Keras 3's .weights.h5"
    else:
        there = ", ".join(list(file)[:5]) or "nothing"
        raise CheckpointError(f"{path} is an HDF5 file, but not of Keras weights: its root holds {there}")
    notes: list[str] = [bfloat16_note(wide)] if (wide := sum(map(_is_bfloat16, state.values()))) else []
    if quantized := [key for key, data in state.items() if getattr(data, "dtype", None) == np.int8]:
        raise CheckpointError(
            f"{path} was quantized by Keras ({layout.listed(quantized)} are int8), which van does not read; use the "
            "model as it was before model.quantize (van export --int8 quantizes for other runtimes)"
        )
    arrays = {key: _to_ours(table, key, data) for key, data in state.items()}
    arrays |= _counters(state, table, record, notes)
    found = ParsedCheckpoint(
        format="keras", state=arrays, table=table, lineage=LINEAGE, statistics=OFFICIAL, notes=notes
    )
    found.provenance = {"source": path.name, "format": "keras", "layout": kind}
    found.record = record
    return found


def _apply_model(found: ParsedCheckpoint, config: Mapping[str, Any]) -> None:
    """Take the architecture from the config.json of a model that Keras saved whole: plain values, nothing is built.

    Raises CheckpointError unless there is exactly one Visual Attention Network in it.
    """
    models = list(_models_in(config))
    source = found.provenance["source"]
    if len(models) != 1:
        raise CheckpointError(
            f"{source}: its config.json describes {len(models)} Visual Attention Networks; expected one, saved by Keras"
        )
    stated = models[0]
    fields = {name: stated[name] for name in VanConfig().to_dict() if stated.get(name) is not None}
    if found.record is None:
        own = {name: stated.get(name) for name in ("classes", "preprocess", "provenance")}
        found.record = {"config": fields, **own}
    if stated.get("num_classes") and stated.get("pooling") not in (None, "avg"):
        found.notes.append(f"the model pools by {stated['pooling']!r}, van's classifier by 'avg'; the logits differ")
    activation = stated.get("classifier_activation")
    if activation not in (None, "linear"):
        found.notes.append(f"the model's output went through {activation!r}; these are the logits before it")


def _add_preset_head(found: ParsedCheckpoint, content: Content) -> None:
    """Take the head of a preset's classifier, and its names, from the files of their own beside the backbone's."""
    task, weights = (content.path.with_name(name) for name in folders.PRESET_TASK)
    if content.path.name != folders.KERAS_WEIGHTS or not (task.is_file() and weights.is_file()):
        return
    with keras_layers.opened(replace(content, path=weights, tree=weights)) as file:
        parts = _read_keras_3(file, keras_layers.datasets(file))
        head = {key: _to_ours(found.table, key, each) for key, each in parts.items()}
    try:
        stated = next(_models_in(read_json(task)), None)
        if stated is None:
            raise ValueError("it describes no Visual Attention Network")
        config = {**found.record["config"], "num_classes": stated.get("num_classes")}
        found.record = {**found.record, "config": config, "classes": stated.get("classes")}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{task} cannot be used: {error}; save the preset again") from error
    found.state = {**found.state, **head}


def _models_in(value: Any) -> Iterator[Mapping[str, Any]]:
    """The arguments of every VAN in Keras's description of a model, at any depth."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            config = value.get("config")
            if isinstance(config, Mapping) and config.keys() >= _ARCHITECTURE:
                yield config
            else:
                waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _record(file: Any) -> Any:
    if RECORD not in file.attrs:
        return None
    try:
        return parse_json(hdf5.attribute(file, RECORD))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{file.filename}: its attribute {RECORD!r} is not valid JSON: {error}") from error


def _normalised(weight: str) -> str:
    """`van_b0/block1/0/mlp/fc1/conv2d_6/kernel:0` -> `block1/0/mlp/fc1/kernel`."""
    weight = re.sub(r"/conv2d(_\d+)?/(?=(kernel|bias)(:0)?$)", "/", weight.removesuffix(":0"))
    ours = r"(?:patch_embed|block|norm)\d+/|head/"
    return re.sub(rf"^(?:(?!{ours})[^/]+/)+(?={ours})", "", weight)


def _read_keras_3(file: Any, datasets: dict[str, Any]) -> dict[str, Any]:
    """`<layer's name>/<attributes>/vars/<index>` -> data set; a model inside a model is found as well."""
    state = {}
    for path, data in datasets.items():
        match = re.fullmatch(r"(?P<group>(?:.*/)?layers/[^/]+)/(?P<rest>.+)", path)
        if match is None:
            raise CheckpointError(f"{file.filename} holds {path}, which belongs to no layer of the network")
        home = file.get(f"{match['group']}/vars")
        name = hdf5.attribute(home, "name") if home is not None and "name" in home.attrs else None
        if name is None:
            raise CheckpointError(
                f"{file.filename} does not contain the name of its layer {match['group']}; "
                "save the weights again with a newer Keras 3"
            )
        key = f"{name}/{match['rest']}"
        if key in state:
            raise CheckpointError(f"{file.filename} has two layers named {name!r}")
        state[key] = data
    return state


def _is_bfloat16(data: Any) -> bool:
    return "dtype" in data.attrs and hdf5.attribute(data, "dtype") == "bfloat16"


def _to_ours(table: keys.KeyTable, key: str, data: Any) -> np.ndarray:
    array = np.asarray(data[()])
    if _is_bfloat16(data):  # the upper half of a float32
        array = (np.frombuffer(array.tobytes(), "<u2").astype(np.uint32) << 16).view(np.float32).reshape(data.shape)
    ours = table.canonical(key) or ""
    if not ours.endswith(".weight") or array.ndim not in (2, 4):
        return array
    if table is PORT and re.fullmatch(_DEPTHWISE, ours):
        return np.ascontiguousarray(array.transpose(3, 2, 0, 1))  # (kh, kw, 1, C) -> (C, 1, kh, kw)
    return from_keras(ours, array)


def from_keras(key: str, array: np.ndarray) -> np.ndarray:
    """A Keras 3 variable as the tensor of that canonical key."""
    if array.ndim == 2:
        array = array.T  # (in, out) -> (out, in)
    elif array.ndim == 4 and re.fullmatch(_DEPTHWISE, key):
        array = array.transpose(2, 3, 0, 1)  # (kh, kw, C, 1) -> (C, 1, kh, kw)
    elif array.ndim == 4:
        array = array.transpose(3, 2, 0, 1)  # (kh, kw, in, out) -> (out, in, kh, kw)
    return np.ascontiguousarray(array)


def to_keras(key: str, array: np.ndarray) -> np.ndarray:
    """The tensor of a canonical key as Keras 3's variable."""
    if array.ndim == 2:
        return array.T
    if array.ndim == 4:
        return array.transpose(2, 3, 0, 1) if re.fullmatch(_DEPTHWISE, key) else array.transpose(2, 3, 1, 0)
    return array


def _counters(state: Mapping[str, Any], table: keys.KeyTable, record: Any, notes: list[str]) -> Arrays:
    """The counters of every batch norm (a norm inside another layer), which only our record may hold."""
    stated = record.get("counters") if isinstance(record, Mapping) else None
    modules = dict.fromkeys(re.sub(r"(/vars)?/[^/]+$", "", key) for key in state)
    names = [f"{module}/{COUNTER}" for module in modules if re.search(r"/norm\d?$", module)]
    if not isinstance(stated, Mapping):
        stated = {}
        notes.append(f"Keras keeps no {COUNTER}; the {len(names)} counters start at 0")
    known = checked.counters(stated)
    return {name: np.array(known.get(table.canonical(name) or "", 0), np.int64) for name in names}


def _group_of(layer: str, before: list[str]) -> str:
    """Keras's group of a top layer: its class, numbered from the second one on."""
    kind = CLASSES[_kind(layer)]
    count = sum(CLASSES[_kind(other)] == kind for other in before)
    return f"layers/{kind}" + (f"_{count}" if count else "")


def _kind(layer: str) -> str:
    return re.sub(r"\d+(_\d+)?$", "", layer)


def _make_levels(file: Any, group: str, layer: str, rest: str) -> None:
    """The named `vars` groups of a layer and of the sub-layers on the way to one of its variables."""
    _named(file, group, layer)
    path = group
    for part in rest.split("/")[:-2]:
        path = f"{path}/{part}"
        _named(file, path, part)


def _named(file: Any, group: str, name: str) -> None:
    file.require_group(f"{group}/vars" if group else "vars").attrs["name"] = name
