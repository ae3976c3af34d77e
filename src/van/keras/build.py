"""From a model's arguments to its graph, and to what is known about it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoints import Checkpoint
from ..checkpoints.reading import for_channels
from ..configs.backbone import VanConfig, resolve
from ..errors import ConfigError, UnknownNameError, VanNotice
from ..images.preprocess import OFFICIAL, Preprocess
from . import graph
from . import options as arguments
from . import weights as files
from .parts import Parts


@dataclass(frozen=True, kw_only=True)
class Built:
    """What `VAN.__init__` makes a model of; checkpoint: weights that are still to be put into its variables."""

    inputs: Any
    outputs: Any
    config: VanConfig
    data_format: str
    policy: Any
    parts: Parts
    classes: tuple[str, ...] | None
    preprocess: Preprocess | None
    provenance: dict[str, Any]
    checkpoint: Checkpoint | None = None


@dataclass(frozen=True)
class Ending:
    """What a model has after the last map, and what its user says about it."""

    include_top: bool
    activation: Any
    pooling: str | None
    classes: tuple[str, ...] | None
    preprocess: Preprocess | None

    def check(self, config: VanConfig) -> None:
        """Raise ConfigError or UnknownNameError for what no model of this configuration can have."""
        pooling, activation, classes = self.pooling, self.activation, self.classes
        if pooling is not None and pooling not in arguments.POOLINGS:
            raise UnknownNameError.of("pooling", str(pooling), [*arguments.POOLINGS, "None"])
        if config.num_classes and pooling is None:
            raise ConfigError(
                "pooling=None gives the map, which a classifier cannot use; use 'avg', or include_top=False"
            )
        if not config.num_classes and activation is not None:
            reason = "num_classes=0" if self.include_top else "include_top=False"
            raise ConfigError(f"classifier_activation={activation!r} belongs to the head; leave it out with {reason}")
        if classes is not None and len(classes) != config.num_classes:
            raise ConfigError(f"{len(classes)} names of classes for a head of {config.num_classes}; give one for each")


def network(
    ending: Ending,
    images: arguments.Images,
    policy: Any,
    parts: Parts,
    *,
    configuration: str | None,
    num_stages: int | None,
    given: dict[str, Any],
    weights: str | Path | None,
    pretrained: bool,
    ema: bool,
) -> Built:
    """A network of its own, of the wanted configuration or of the weights'."""
    checkpoint = _checkpoint(configuration, num_stages, given, weights, pretrained, ema)
    config = _config(configuration, num_stages, given, checkpoint, ending.include_top)
    ending.check(config)
    tensor = images.tensor if images.tensor is not None else graph.images_of(config, images.sides, images.data_format)
    x = graph.maps_of(tensor, config, images.data_format, policy, parts)
    outputs = graph.outputs_of(x, config, ending.pooling, ending.activation, images.data_format, policy, parts)
    same = checkpoint is not None and checkpoint.config.num_classes == config.num_classes
    return Built(
        inputs=tensor if images.tensor is None else images.sources,
        outputs=outputs,
        config=config,
        data_format=images.data_format,
        policy=policy,
        parts=parts,
        classes=ending.classes or (checkpoint.classes if checkpoint is not None and same else None),
        preprocess=ending.preprocess or _preprocess(checkpoint, config, images.sides),
        provenance=dict(checkpoint.provenance) if checkpoint else {},
        checkpoint=checkpoint,
    )


def on_backbone(backbone: Any, given: dict[str, Any], ending: Ending, settled: Mapping[str, Any]) -> Built:
    """A classifier on the layers of another VAN, which both then share.

    settled: arguments that are the backbone's own; raises ConfigError where one is given.
    """
    own = {key: value for key, value in given.items() if key not in ("num_classes", "head_drop_rate")}
    for name, value in {**settled, **own}.items():
        if value is not None and value is not False:
            raise ConfigError(f"{name}={value!r} was given and a backbone, which has its own; leave one of them out")
    if not ending.include_top or not given.get("num_classes"):
        raise ConfigError("a classifier on a backbone needs num_classes, or classes; without a head use the backbone")
    config = backbone.config.with_options(**given)
    ending.check(config)
    parts = Parts()
    for name, layer in backbone.parts.layers.items():
        if name.startswith(graph.STAGES):
            parts.layers[name], parts.configs[name] = layer, backbone.parts.configs[name]
    x = parts.layers[f"norm{config.num_stages}"].output
    after = (ending.pooling, ending.activation, backbone.data_format, backbone.policy, parts)
    return Built(
        inputs=backbone.inputs if len(backbone.inputs) > 1 else backbone.input,
        outputs=graph.outputs_of(x, config, *after),
        config=config,
        data_format=backbone.data_format,
        policy=backbone.policy,
        parts=parts,
        classes=ending.classes,
        preprocess=ending.preprocess or backbone.preprocess,
        provenance=dict(backbone.provenance),
    )


def _checkpoint(
    configuration: str | None,
    num_stages: int | None,
    given: dict[str, Any],
    weights: Any,
    pretrained: bool,
    ema: bool,
) -> Checkpoint | None:
    """What the arguments ask to be loaded."""
    if pretrained and weights is not None:
        raise ConfigError(f"pretrained and weights={str(weights)!r} were both given; leave one out")
    if pretrained:
        configuration = resolve(configuration or arguments.DEFAULT)
        weights = files.pretrained_row(configuration).name
    if weights is None:
        if ema:
            raise ConfigError("ema chooses between the weights of a file, and none is given; leave it out")
        return None
    return files.read(weights, arguments.known_of(configuration, num_stages, given), ema=ema)


def _config(
    configuration: str | None,
    num_stages: int | None,
    given: dict[str, Any],
    checkpoint: Checkpoint | None,
    include_top: bool,
) -> VanConfig:
    """The configuration of the model; says what becomes of the checkpoint's head."""
    wanted = given.get("num_classes") if include_top else 0
    if checkpoint is None:
        config = arguments.config_of(configuration, num_stages, given)
        return config if wanted is None else config.with_options(num_classes=wanted)
    has = checkpoint.config.num_classes
    if wanted is None and not has:
        raise ConfigError("these weights have no head; give num_classes for a new one, or include_top=False")
    notes = [note for note in checkpoint.notes if "num_batches_tracked" not in note]  # which Keras has not
    if wanted and wanted != has:
        old = f"the file's head of {has} classes is left out" if has else "the file has no head"
        notes.append(f"{old}; a new one of {wanted} classes is used")
    for note in notes:
        warnings.warn(note, VanNotice, stacklevel=5)
    config = checkpoint.classifier
    return config if wanted is None else config.with_options(num_classes=wanted)


def _preprocess(
    checkpoint: Checkpoint | None, config: VanConfig, sides: tuple[int | None, int | None]
) -> Preprocess | None:
    """The weights' own record, at the model's own size where it has one."""
    own = checkpoint.preprocess if checkpoint is not None else for_channels(OFFICIAL, config.in_chans)
    return own if own is None or None in sides else own.with_overrides(size=sides)
