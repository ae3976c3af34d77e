"""What the arguments of a Keras model mean: which configuration, images of which shape.

Every bad value raises ConfigError or UnknownNameError, both ValueErrors, which name what would be right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from ..errors import ConfigError, UnknownNameError
from ..variants import VARIANTS, VanConfig, resolve

DATA_FORMATS = ("channels_last", "channels_first")
POOLINGS = ("avg", "max")
PER_STAGE = ("embed_dims", "depths", "mlp_ratios")
DEFAULT = "van_b0"


def given_of(options: Mapping[str, Any], channels: int | None, classes: Sequence[str] | None) -> dict[str, Any]:
    """The fields of VanConfig that were given, with what follows from the images' channels and the classes' names."""
    given = {key: value for key, value in options.items() if value is not None}
    if channels is not None and given.setdefault("in_chans", channels) != channels:
        raise ConfigError(f"input_shape has {channels} channels, in_chans is {given['in_chans']}; give one of the two")
    if classes is not None:
        given.setdefault("num_classes", len(classes))
    return given


def config_of(configuration: str | None, num_stages: int | None, options: Mapping[str, Any]) -> VanConfig:
    """A published configuration (None: van_b0) with what is given changed; `options` are fields of VanConfig."""
    base = VARIANTS[resolve(configuration or DEFAULT)]
    return base.with_options(**given_fields(base, num_stages, options))


def known_of(configuration: str | None, num_stages: int | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a checkpoint has to have, because the caller says so; its head may be of another width."""
    known = dict(options)
    if configuration is not None:
        base = VARIANTS[resolve(configuration)]
        known = {name: getattr(base, name) for name in PER_STAGE} | known
        known = given_fields(base, num_stages, known)
    elif num_stages is not None:
        raise ConfigError(f"num_stages is {num_stages}, but the weights tell their stages; leave it out")
    known.pop("num_classes", None)
    return known


def given_fields(base: VanConfig, num_stages: int | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with what follows from them: the first `num_stages` stages, patches of 7, 3, 3, …."""
    fields = dict(options)
    if num_stages is not None:
        if not 1 <= num_stages <= base.num_stages and "embed_dims" not in fields:
            raise ConfigError(
                f"num_stages is {num_stages}; expected 1 to {base.num_stages}, or embed_dims, depths and mlp_ratios "
                "of that many entries"
            )
        for name in PER_STAGE:
            fields.setdefault(name, getattr(base, name)[:num_stages])
            if len(tuple(fields[name])) != num_stages:
                raise ConfigError(
                    f"{name} has {len(tuple(fields[name]))} entries, num_stages is {num_stages}; give one per stage"
                )
    stages = len(tuple(fields.get("embed_dims", base.embed_dims)))
    if stages != base.num_stages:
        fields.setdefault("patch_sizes", (7, *(3,) * (stages - 1)))
    return fields


def data_format_of(value: str | None) -> str:
    """The given data format, None for Keras's setting."""
    value = value or keras.config.image_data_format()
    if value not in DATA_FORMATS:
        raise UnknownNameError.of("data_format", str(value), DATA_FORMATS)
    return value


def sides_of(
    img_resolution: int | Sequence[int] | None, input_shape: Sequence[int | None] | None, data_format: str
) -> tuple[tuple[int | None, int | None], int | None]:
    """((height, width), channels) that the two arguments ask for; None where they leave it open."""
    sides: tuple[int | None, ...] = (None, None)
    channels = None
    if img_resolution is not None:
        sides = (img_resolution,) * 2 if isinstance(img_resolution, int) else tuple(img_resolution)
    if input_shape is not None:
        shape = tuple(input_shape)
        order = "(height, width, channels)" if data_format == "channels_last" else "(channels, height, width)"
        if len(shape) != 3:
            raise ConfigError(f"input_shape is {input_shape!r}; expected {order}, without the batch")
        *own, channels = shape if data_format == "channels_last" else (*shape[1:], shape[0])
        if img_resolution is not None and tuple(own) != sides:
            raise ConfigError(f"input_shape is {shape}, img_resolution is {img_resolution!r}; give one of the two")
        sides = tuple(own)
    if len(sides) != 2 or any(side is not None and (not isinstance(side, int) or side < 1) for side in sides):
        raise ConfigError(f"images of {sides}; expected img_resolution as pixels or (height, width), e.g. 224")
    return (sides[0], sides[1]), channels
