"""The HDF5 layout of Keras 2's `save_weights`, in which both ports of the network to TensorFlow published weights.

One group per top layer, named by the root attribute `layer_names`; each group's attribute `weight_names` gives the data
sets in it, in the order in which Keras assigns them. A model that was saved whole has the same below `model_weights`.
Source: keras/saving of Keras 2.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..errors import CheckpointError, MissingExtraError
from . import hdf5, layout
from .checkpoint import Content
from .damage import one_line

# Not weights: what a compiled model saves beside them, and the random state of dropout.
_NOT_WEIGHTS = re.compile(r"(.*/)?(optimizer|optimizer_weights|seed_generator)/")
_TOP_LEVEL = "top_level_model_weights"  # a group that `layer_names` leaves out


@dataclass(frozen=True)
class Layers:
    """The layers of a file: root, the group in which they lie ("" for the file), and layer -> names of its weights."""

    root: str
    weights: Mapping[str, list[str]]


def h5py() -> Any:
    """The module; raises MissingExtraError where it is not installed."""
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError.of("h5py", "keras", "to read and write Keras .h5 files") from error
    return h5py


@contextmanager
def opened(content: Content) -> Iterator[Any]:
    """The file, with whatever h5py raises about a broken one on one line."""
    module, path = h5py(), content.path
    try:
        with module.File(content.tree, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path} is truncated or corrupt ({one_line(error)}); download or save it again"
        ) from error


def datasets(file: Any) -> dict[str, Any]:
    """Path -> data set of weights."""
    found = hdf5.datasets(file)
    return {name: node for name, node in found.items() if not _NOT_WEIGHTS.match(name)}


def layers_of(file: Any) -> Layers | None:
    """The layers of a file in this layout, None for another; raises CheckpointError for Keras 3's legacy form."""
    root = next((root for root in ("", "model_weights") if _has_attribute(file, root, "layer_names")), None)
    if root is None:
        return None
    if str(file.attrs.get("keras_version", "")).startswith("3"):
        raise CheckpointError(
            f"{file.filename} is a model in the legacy form of Keras 3; save it as .keras or .weights.h5"
        )
    home = file[root] if root else file
    names = _attribute(home, "layer_names")
    names += [_TOP_LEVEL] if _TOP_LEVEL in home and _TOP_LEVEL not in names else []
    return Layers(root, {name: _attribute(home[name], "weight_names") for name in names})


def read(file: Any, layers: Layers, found: Mapping[str, Any], normalised: Callable[[str], str]) -> dict[str, Any]:
    """Normalised weight name -> data set of `found`; one without a name or a name without a data set raises."""
    prefix = f"{layers.root}/" if layers.root else ""
    left, state = {name for name in found if name.startswith(prefix)}, {}
    for layer, weights in layers.weights.items():
        for weight in weights:
            path, key = f"{prefix}{layer}/{weight}", normalised(weight)
            if path not in found:
                raise CheckpointError(f"{file.filename} names the weight {weight!r} but has no data for it")
            if key in state:
                raise CheckpointError(f"{file.filename} holds {key!r} twice, under two spellings")
            left.discard(path)
            state[key] = found[path]
    if left:
        raise CheckpointError(
            f"{file.filename} holds {len(left)} data sets that belong to no layer: {layout.listed(sorted(left))}"
        )
    return state


def write(file: Any, layers: Mapping[str, Mapping[str, Any]]) -> None:
    """Write layer -> {weight name: array} in the order of both; a layer without weights has an empty mapping."""
    file.attrs["layer_names"] = [name.encode() for name in layers]
    for layer, weights in {**layers, _TOP_LEVEL: {}}.items():
        group = file.create_group(layer)
        group.attrs["weight_names"] = [name.encode() for name in weights]
        for name, array in weights.items():
            group[name] = array


def _has_attribute(file: Any, group: str, name: str) -> bool:
    return (not group or group in file) and bool({name, f"{name}0"} & set((file[group] if group else file).attrs))


def _attribute(group: Any, name: str) -> list[str]:
    """A list of strings, which Keras 2 cuts into `name0`, `name1`, … when it is long."""
    cut = itertools.takewhile(lambda part: part in group.attrs, (f"{name}{k}" for k in itertools.count()))
    parts = [name] if name in group.attrs else list(cut)
    values = [value for part in parts for value in hdf5.attribute(group, part)]
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]
