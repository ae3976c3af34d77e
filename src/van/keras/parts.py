"""What was changed in a layer since it was made: frozen, quantised, renamed, regularised, given another dtype.

A config keeps the changes alone, by the names that the layers were made with, so that it stays one page of arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras


class Parts:
    """Layers by the names they are made with, each with the config it had then.

    changes: name -> the entries of that layer's config that are to be others; trainable: of layers that do not say.
    """

    def __init__(self, changes: Mapping[str, Any] | None = None, *, trainable: bool = True) -> None:
        self.changes = dict(changes or {})
        self.inherited = {} if trainable else {"trainable": False}
        self.layers: dict[str, Any] = {}
        self.configs: dict[str, dict[str, Any]] = {}

    def make(self, kind: Any, name: str, **options: Any) -> Any:
        """A layer of that class, with what was changed."""
        layer = kind(name=name, **options)
        self.configs[name] = _plain(layer.get_config())
        if changes := {**self.inherited, **self.changes.get(name, {})}:
            layer = kind.from_config({**self.configs[name], **changes})
        self.layers[name] = layer
        return layer

    def changed(self, **inherited: Any) -> dict[str, Any]:
        """`changes` that would make these layers again; inherited: entries that follow the layer around them."""
        found = {}
        for name, layer in self.layers.items():
            before = {**self.configs[name], **inherited}
            changes = {key: value for key, value in _plain(layer.get_config()).items() if value != before.get(key)}
            if changes:
                found[name] = changes
        return found


class Composite(keras.layers.Layer):
    """A layer made of layers, whose config carries what was changed in them.

    parts: name -> changed entries of that sublayer's config, as `get_config` gives them.
    """

    def __init__(self, *, parts: Mapping[str, Any] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.parts = Parts(parts)
        self.arguments: dict[str, Any] = {}

    def part(self, kind: Any, name: str, **options: Any) -> Any:
        """A sublayer that follows this layer's dtype and is frozen with it."""
        return self.parts.make(kind, name, **{"dtype": self.dtype_policy, "trainable": self.trainable, **options})

    @keras.layers.Layer.dtype_policy.setter
    def dtype_policy(self, value: Any) -> None:
        """Of the sublayers, too."""
        keras.layers.Layer.dtype_policy.fset(self, value)
        for layer in self.parts.layers.values():
            layer.dtype_policy = value

    def get_config(self) -> dict[str, Any]:
        """The arguments, and what was changed in the sublayers."""
        dtype = _plain(keras.dtype_policies.serialize(self.dtype_policy))
        parts = self.parts.changed(trainable=self.trainable, dtype=dtype)
        return {**super().get_config(), **self.arguments, **({"parts": parts} if parts else {})}


def _plain(config: Any) -> Any:
    """The config without the marks that Keras puts into it while it saves or loads."""
    if isinstance(config, Mapping):
        return {key: _plain(value) for key, value in config.items() if key != "shared_object_id"}
    return [_plain(value) for value in config] if isinstance(config, list | tuple) else config
