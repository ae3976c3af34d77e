"""What the arguments of a Keras model mean: which configuration, images of which shape.

Every bad value raises ConfigError or UnknownNameError, both ValueErrors, which name what would be right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Integral, Real
from os import PathLike
from typing import Any

import keras

from ..configs.backbone import VARIANTS, VanConfig, resolve
from ..errors import ConfigError, UnknownNameError
from ..images.preprocess import Preprocess

DATA_FORMATS = ("channels_last", "channels_first")
POOLINGS = ("avg", "max")
PER_STAGE = ("embed_dims", "depths", "mlp_ratios")
DEFAULT = "van_b0"
USUAL_CHANNELS = (1, 3, 4)  # gray, RGB, and one more
# What keras-hub and keras.applications call an argument that has another name here.
ELSEWHERE = {
    "activation": "classifier_activation",
    "dropout": "head_drop_rate",
    "head_dtype": "dtype",
    "image_shape": "input_shape",
    "preprocessor": "preprocess",
    "weights_path": "weights",
}
ORDERS = {"channels_last": "(height, width, channels)", "channels_first": "(channels, height, width)"}


@dataclass(frozen=True, kw_only=True)
class Images:
    """What a model takes: sides (height, width), None for any; or a Keras tensor, computed of the inputs `sources`."""

    sides: tuple[int | None, int | None]
    channels: int | None
    data_format: str
    tensor: Any = None
    sources: Any = None


def require_types(flags: Mapping[str, Any], **others: Any) -> None:
    """Raise ConfigError for switches that are no booleans, and for names and places that are no text."""
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise ConfigError(f"{name} is {value!r}; expected True or False")
    for name, value in others.items():
        path = name == "weights" and isinstance(value, PathLike)
        if value is not None and not path and (not isinstance(value, str) or not value):
            raise ConfigError(f"{name} is {value!r}; expected {_EXPECTED[name]}")
    if "/" in (others.get("name") or ""):
        raise ConfigError(f"name is {others['name']!r}; Keras allows no slash in it")


_EXPECTED = {
    "configuration": "the name of a size, e.g. 'van_b0'",
    "weights": "a file, a folder, a preset, a hub id or 'imagenet'",
    "name": "a string, e.g. 'van'",
}


def classes_of(classes: Any, num_classes: int | None) -> tuple[tuple[str, ...] | None, int | None]:
    """(names, how many) that the two arguments say; `classes` is either of them."""
    if classes is None:
        return None, num_classes
    if isinstance(classes, Integral) and not isinstance(classes, bool):
        if num_classes not in (None, classes):
            raise ConfigError(f"classes is {classes}, num_classes is {num_classes}; give one of the two")
        return None, int(classes)
    if not isinstance(classes, Sequence) or isinstance(classes, str | bytes):
        raise ConfigError(f"classes is {classes!r}; expected how many there are, or a list of their names")
    for name in classes:
        if not isinstance(name, str):
            raise ConfigError(f"classes has {name!r} among the names; expected strings, or one number for how many")
    return tuple(classes), len(classes) if num_classes is None else num_classes


def given_of(options: Mapping[str, Any], images: Images) -> dict[str, Any]:
    """The fields of VanConfig that were given, of the right types, with what follows from the images' channels."""
    given = {key: _field(key, value) for key, value in options.items() if value is not None}
    channels = images.channels
    if channels is not None and given.setdefault("in_chans", channels) != channels:
        raise ConfigError(f"input_shape has {channels} channels, in_chans is {given['in_chans']}; give one of the two")
    return given


def _field(name: str, value: Any) -> Any:
    """The value as VanConfig's field of that name expects it."""
    kinds = {field.name: str(field.type) for field in fields(VanConfig)}
    if name not in kinds:
        if name in ELSEWHERE:
            raise ConfigError(f"{name} is not an argument of VAN; use {ELSEWHERE[name]}")
        raise UnknownNameError.of("architecture option", name, kinds)
    kind = kinds[name]
    if not kind.startswith("tuple"):
        return _plain(name, value, value, kind)
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise ConfigError(f"{name} is {value!r}; expected one number per stage, e.g. (32, 64, 160, 256)")
    return tuple(_plain(name, entry, value, kind.removeprefix("tuple[").split(",")[0]) for entry in value)


def _plain(name: str, value: Any, whole: Any, kind: str) -> Any:
    """One value as Python's own type of that name; raises ConfigError for another kind of value."""
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind == "str" and isinstance(value, str):
        return value
    if not isinstance(value, bool):
        if kind in ("int", "float") and isinstance(value, Integral):
            return int(value)
        if kind == "float" and isinstance(value, Real):
            return float(value)
    expected = {"int": "a whole number", "float": "a number", "bool": "True or False", "str": "a text"}[kind]
    raise ConfigError(f"{name} is {whole!r}; expected {expected}" + ("" if value is whole else " for each stage"))


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
        raise ConfigError(f"num_stages is {num_stages}, but the weights determine their stages; leave it out")
    known.pop("num_classes", None)
    return known


def given_fields(base: VanConfig, num_stages: int | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with what follows from them: the first `num_stages` stages, patches of 7, 3, 3, …."""
    fields = dict(options)
    if num_stages is not None:
        num_stages = _plain("num_stages", num_stages, num_stages, "int")
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


def policy_of(dtype: Any) -> Any:
    """The dtype policy that is meant, None for Keras's setting."""
    try:
        return keras.config.dtype_policy() if dtype is None else keras.dtype_policies.get(dtype)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"dtype is {dtype!r}; expected e.g. 'float32', 'mixed_bfloat16' or a DTypePolicy") from error


def activation_of(activation: Any) -> Any:
    """The given activation, which Keras knows."""
    try:
        keras.activations.get(activation)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"classifier_activation is {activation!r}; expected None, a function, or a name that Keras knows, "
            "e.g. 'softmax'"
        ) from error
    return activation


def preprocess_of(preprocess: Any) -> Preprocess | None:
    """The record that is meant."""
    if preprocess is None or isinstance(preprocess, Preprocess):
        return preprocess
    if not isinstance(preprocess, Mapping):
        raise ConfigError(f"preprocess is {preprocess!r}; expected a van.Preprocess, or a dict of its fields")
    return Preprocess.from_dict(preprocess)


def images_of(
    *,
    data_format: str | None,
    in_chans: Any,
    img_resolution: int | Sequence[int] | None,
    input_shape: Sequence[int | None] | None,
    input_tensor: Any,
) -> Images:
    """What the arguments ask for; raises ConfigError where they contradict each other."""
    data_format = data_format_of(data_format)
    sides = _sides(img_resolution)
    if input_tensor is None:
        own, channels = _shape(input_shape, "input_shape", data_format, in_chans)
        if img_resolution is not None and input_shape is not None and own != sides:
            raise ConfigError(
                f"input_shape is {tuple(input_shape)}, img_resolution is {img_resolution!r}; give one of the two"
            )
        return Images(sides=own if input_shape is not None else sides, channels=channels, data_format=data_format)
    if not isinstance(input_tensor, keras.KerasTensor):
        kind = type(input_tensor).__name__
        raise ConfigError(f"input_tensor is a {kind}; expected a Keras tensor, e.g. keras.Input((224, 224, 3))")
    shape = tuple(input_tensor.shape[1:])
    if img_resolution is not None or (input_shape is not None and tuple(input_shape) != shape):
        raise ConfigError(f"input_tensor has images of {shape}; leave out input_shape and img_resolution")
    sides, channels = _shape(shape, "input_tensor", data_format, in_chans)
    sources = keras.utils.get_source_inputs(input_tensor)
    return Images(
        sides=sides,
        channels=channels,
        data_format=data_format,
        tensor=input_tensor,
        sources=sources[0] if len(sources) == 1 else sources,
    )


def _sides(img_resolution: Any) -> tuple[int | None, int | None]:
    if img_resolution is None:
        return None, None
    sides = (img_resolution,) * 2 if isinstance(img_resolution, Integral) else img_resolution
    if isinstance(sides, Sequence) and len(sides) == 2 and all(_is_side(side) for side in sides):
        return tuple(None if side is None else int(side) for side in sides)  # type: ignore[return-value]
    raise ConfigError(
        f"img_resolution is {img_resolution!r}; expected img_resolution as pixels or (height, width), e.g. 224"
    )


def _is_side(side: Any) -> bool:
    return side is None or (isinstance(side, Integral) and not isinstance(side, bool) and int(side) >= 1)


def _shape(shape: Any, name: str, data_format: str, in_chans: Any) -> tuple[tuple[int | None, int | None], int | None]:
    """((height, width), channels) of a shape without the batch; refuses one of the other layout."""
    if shape is None:
        return (None, None), None
    order = ORDERS[data_format]
    if not isinstance(shape, Sequence) or isinstance(shape, str | bytes) or len(shape) != 3:
        raise ConfigError(f"{name} is {shape!r}; expected {order}, without the batch")
    first, middle, last = (None if side is None else int(side) if _is_side(side) else side for side in shape)
    height, width, channels = (first, middle, last) if data_format == "channels_last" else (middle, last, first)
    for side in (height, width, channels):
        if not _is_side(side):
            raise ConfigError(f"{name} is {tuple(shape)}; expected {order} as whole numbers, None for any side")
    elsewhere = first if data_format == "channels_last" else last
    if elsewhere in USUAL_CHANNELS and channels not in USUAL_CHANNELS and in_chans is None:
        other = next(each for each in DATA_FORMATS if each != data_format)
        raise ConfigError(
            f"{name} is {tuple(shape)}, in {data_format} {order}, but looks like {ORDERS[other]}; transpose it or "
            f"pass data_format={other!r}" + (f", or in_chans={channels} if that is meant" if channels else "")
        )
    if channels is None:
        raise ConfigError(f"{name} is {tuple(shape)}; expected {order} with the number of channels")
    return (height, width), channels
