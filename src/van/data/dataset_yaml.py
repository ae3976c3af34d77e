"""Any folders of images and masks, described by a small YAML file beside them:

    images: images                  # a folder, or {train: images/a, val: images/b}; train/ and val/ inside are found
    masks: masks                    # likewise
    names: [background, cat, dog]   # or {0: background, …}, or a text file with one name a line
    palette: ["#000000", [0, 0, 255], "#ff0000"]  # optional; needed to read RGB masks
    ignore_index: 255               # stored where there is no label
    ignore_color: [255, 255, 255]   # optional; the same in RGB masks
    reduce_zero_label: false        # true: 0 is no label, classes count from 1
    values: {0: 0, 255: 1}          # optional; stored value -> class, when masks hold other numbers
    by_color: false                 # true: palette images are read by their colours, not their indices
    image_suffix: _rgb.png          # optional; end of the file names, when it is more than .jpg or .png
    mask_suffix: _labels.png
    lists: {train: train.txt, val: val.txt}       # optional; names of each part, one per line
    val_fraction: 0.2               # where nothing else says what belongs to val

Paths count from the YAML file's folder.
"""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import ConfigError, DataError, UnknownNameError, VanNotice
from ..images.label_maps import default_palette
from ..images.palettes import Color
from ..recipes.reading import read_settings
from .layouts import Layout, Lister, Listing, match, read_names
from .masks import MaskRule
from .split import stratified_split
from .split_folders import PARTS, split_folder

FILE_NAMES = ("dataset.yaml", "dataset.yml")
KEYS = (
    *("images", "masks", "names", "palette", "ignore_index", "ignore_color", "reduce_zero_label", "values", "by_color"),
    *("image_suffix", "mask_suffix", "lists", "val_fraction"),
)


def description_of(data: Path) -> Path | None:
    """The YAML file that `data` is, or holds; None without one."""
    if data.suffix.lower() in (".yaml", ".yml"):
        return data
    return next((data / name for name in FILE_NAMES if (data / name).is_file()), None)


def read_description(path: Path, *, seed: int = 0, val_fraction: float | None = None) -> Layout:
    """The layout that a YAML file describes; `val_fraction` overrules the file's.

    Raises DataError for a file that cannot be read, ConfigError for keys and values that cannot work.
    """
    d = _load(path)
    names = _names(d["names"], path)
    colors = _palette(d.get("palette"), names, path)
    try:
        rule = MaskRule(
            num_classes=len(names),
            ignore_index=_typed(d, "ignore_index", int, 255),
            reduce_zero_label=_typed(d, "reduce_zero_label", bool, False),
            values=_values(d.get("values")),
            colors=colors,
            ignore_colors=() if d.get("ignore_color") is None else (_color(d["ignore_color"]),),
            by_color=_typed(d, "by_color", bool, False),
        )
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    fraction = val_fraction if val_fraction is not None else _typed(d, "val_fraction", float, None)
    return Layout(
        name=path.name,
        root=path.parent,
        classes=names,
        palette=colors or default_palette(len(names)),
        rule=rule,
        splits=_splits(d, path, seed, fraction),
    )


def _load(path: Path) -> dict[str, Any]:
    try:
        d = read_settings(path, numbered=True)
    except ConfigError as error:
        raise DataError(f"{error} (a dataset.yaml has images, masks and names)") from error
    for key in d:
        if key not in KEYS:
            raise UnknownNameError.of(f"key in {path.name}", str(key), KEYS)
    for key in ("images", "masks", "names"):
        if not d.get(key):
            raise ConfigError(f"{path} does not mention {key!r}; expected images, masks and names")
    return d


def _typed(d: dict[str, Any], key: str, kind: type, default: Any) -> Any:
    value = d.get(key, default)
    if value is None and default is None:
        return None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f"{key} is {value!r}; expected {kind.__name__}, e.g. {key}: {default}")
    return value


def _names(value: Any, path: Path) -> tuple[str, ...]:
    if isinstance(value, str):
        value = read_names(path.parent / value)
    if isinstance(value, dict):
        if {*value} != {*range(len(value))}:
            raise ConfigError(
                f"{path}: names are numbered {list(value)[:12]}; expected 0 … {len(value) - 1} without a gap"
            )
        value = [value[label] for label in range(len(value))]
    if not isinstance(value, list) or not value or not all(isinstance(name, str | int | float) for name in value):
        raise ConfigError(f"{path}: names is {value!r}; expected a list of class names, e.g. [background, cat]")
    names = tuple(str(name) for name in value)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"{path}: names holds {twice!r} twice; give each class a name of its own")
    return names


def _palette(value: Any, names: tuple[str, ...], path: Path) -> tuple[Color, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != len(names):
        count = len(value) if isinstance(value, list) else repr(value)
        raise ConfigError(f"{path}: palette has {count} colours for {len(names)} classes; expected one each")
    return tuple(_color(color) for color in value)


def _color(value: Any) -> Color:
    try:
        channels = list(bytes.fromhex(value.removeprefix("#"))) if isinstance(value, str) else [int(c) for c in value]
        if len(channels) == 3 and all(0 <= channel <= 255 for channel in channels):
            return channels[0], channels[1], channels[2]
    except (TypeError, ValueError):
        pass
    raise ConfigError(f'{value!r} is not a colour; expected [red, green, blue] of 0 … 255, or "#rrggbb" in quotes')


def _values(value: Any) -> dict[int, int] | None:
    if value is None:
        return None
    whole = isinstance(value, dict) and all(type(k) is int and type(v) is int for k, v in value.items())
    if not whole or not value:
        raise ConfigError(f"values is {value!r}; expected stored value: class, e.g. {{0: 0, 255: 1}}")
    return dict(value)


def _splits(d: dict[str, Any], path: Path, seed: int, fraction: float | None) -> dict[str, Lister]:
    """What each split lists: folders of their own, lists of names, or a seeded part of everything."""
    root = path.parent
    suffixes = {key: str(d.get(key) or "") for key in ("image_suffix", "mask_suffix")}
    lists = d.get("lists")
    if lists is not None:
        if not isinstance(lists, dict) or not lists or not {*lists} <= {*PARTS}:
            raise ConfigError(f"{path}: lists is {lists!r}; expected {{train: train.txt, val: val.txt}}")
        images, masks = _single(d, "images", path), _single(d, "masks", path)
        return {split: partial(_listed, images, masks, root / str(file), suffixes) for split, file in lists.items()}
    images_of, masks_of = _folders(d["images"], root), _folders(d["masks"], root)
    if {*images_of} != {*masks_of}:
        _lend_parts(images_of, masks_of)
        _lend_parts(masks_of, images_of)
    if {*images_of} != {*masks_of}:
        raise ConfigError(f"{path}: images has the parts {[*images_of]}, masks {[*masks_of]}; expected the same")
    if "all" not in images_of:
        return {split: partial(match, images_of[split], masks_of[split], **suffixes) for split in images_of}

    everything = partial(match, images_of["all"], masks_of["all"], **suffixes)
    return {split: partial(_drawn, everything, split, path, seed, fraction) for split in PARTS}


def _listed(images: Path, masks: Path, file: Path, suffixes: dict[str, str]) -> Listing:
    return match(images, masks, names=read_names(file), **suffixes)


def _single(d: dict[str, Any], key: str, path: Path) -> Path:
    if not isinstance(d[key], str):
        raise ConfigError(f"{path}: {key} is {d[key]!r}; with lists, expected one folder")
    return path.parent / d[key]


def _folders(value: Any, root: Path) -> dict[str, Path]:
    """Folder of each split; {"all": folder} when the splits are not separated."""
    if isinstance(value, dict):
        if not value or not {*value} <= {*PARTS}:
            raise ConfigError(f"{value!r} are not folders of splits; expected {{train: …, val: …}}")
        return {split: root / str(folder) for split, folder in value.items()}
    folder = root / str(value)
    inside = {split: split_folder(folder, split) for split in PARTS}
    if inside["train"] is None or inside["val"] is None:
        return {"all": folder}
    return {split: part for split, part in inside.items() if part is not None}


def _lend_parts(folders: dict[str, Path], others: dict[str, Path]) -> None:
    """One of two parts may be missing on one side: each is then listed by itself, the missing one as missing."""
    whole = others.get("all")
    if whole is not None and "all" not in folders and any(split_folder(whole, split) is not None for split in folders):
        others.clear()
        others.update({split: split_folder(whole, split) or whole / folders[split].name for split in folders})


def _drawn(lister: Lister, split: str, path: Path, seed: int, fraction: float | None) -> Listing:
    if fraction is None:
        fraction = 0.2
        warnings.warn(
            f"{path} names no validation data; {fraction:.0%} of the images are drawn for it (val_fraction, lists)",
            VanNotice,
            stacklevel=2,
        )
    everything = lister()
    parts = stratified_split([0] * len(everything.pairs), seed=seed, val_fraction=fraction)
    chosen = parts[split == "val"]
    return Listing(tuple(everything.pairs[i] for i in chosen), everything.without_mask, everything.without_image)
