"""A YAML file of settings, read so that no file can do harm: bounded in size, depth and references, no key twice."""

from __future__ import annotations

import math
import re
import reprlib
import stat
from pathlib import Path
from typing import Any

from ..errors import ConfigError

MAX_BYTES, MAX_DEPTH, MAX_NODES, MAX_SCALAR = 1_000_000, 12, 100_000, 10_000
LARGEST = 2**63 - 1

# YAML 1.1 requires a dot in every float; people write 1e-4.
_FLOAT = re.compile(r"[-+]?(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+")


def read_settings(path: Path, *, numbered: bool = False) -> dict[str, Any]:
    """The keys and values of a YAML file; raises ConfigError, on one line, for whatever is wrong with it.

    numbered: numbers may be keys, below the first level.
    """
    return parse_settings(_text(path), path, numbered=numbered)


def parse_settings(text: str, path: Path, *, numbered: bool = False) -> dict[str, Any]:
    """The keys and values of a YAML text, as `read_settings`; path: what errors call it."""
    import yaml

    try:
        _check_events(text, path)
        loader = _loader()(text)
        node = loader.get_single_node()
        if node is not None:
            _check_node(node, path, "", (), {})
        values = loader.construct_document(node) if node is not None else None
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"cannot read {path}: parsing failed: {' '.join(str(error).split())[:300]}") from error
    if not isinstance(values, dict):
        found = "is empty" if values is None else f"holds {reprlib.repr(values)}"
        raise ConfigError(f"{path} {found}; expected keys and values, such as 'optim:' and below it '  lr: 1e-4'")
    _check_values(values, path, "", numbered=numbered)
    return values


def _text(path: Path) -> str:
    """The text of a regular file of reasonable size; a FIFO or a device is not opened."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise ConfigError(f"cannot read {path}: it is {kind}; expected a YAML file of settings")
        if status.st_size > MAX_BYTES:
            raise ConfigError(f"cannot read {path}: it has {status.st_size:,} bytes; settings take a few thousand")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)  # files in /proc say that they have no bytes
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"cannot read {str(path)!r}: {reason}") from error
    if len(data) > MAX_BYTES:
        raise ConfigError(f"cannot read {path}: it has more than {MAX_BYTES:,} bytes; settings take a few thousand")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigError(f"cannot read {path}: it is UTF-16; save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"cannot read {path}: byte {error.start} is not UTF-8; expected a text file") from error


def _loader() -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
    return Loader


def _check_events(text: str, path: Path) -> None:
    """Depth and lengths, before anything that calls itself is done with them."""
    import yaml

    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ConfigError(f"cannot read {path}: more than {MAX_DEPTH} levels of lists and keys; settings have two")
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > MAX_SCALAR:
            line = 0 if event.start_mark is None else event.start_mark.line + 1
            where = f"line {line} has a value of {len(event.value):,} characters"
            raise ConfigError(f"cannot read {path}: {where}; settings are short")


def _check_node(node: Any, path: Path, name: str, above: tuple[int, ...], sizes: dict[int, int]) -> int:
    """How many nodes there are once every reference is written out; raises ConfigError for too many, and keys twice."""
    import yaml

    if id(node) in above:
        raise ConfigError(f"cannot read {path}: {name or 'the whole file'} refers to itself")
    if id(node) in sizes:
        return sizes[id(node)]
    size, below = 1, (*above, id(node))
    if isinstance(node, yaml.MappingNode):
        _check_twice(node, path, name)
        for key, value in node.value:
            inner = ".".join(filter(None, (name, str(key.value) if isinstance(key, yaml.ScalarNode) else "?")))
            size += 1 + _check_node(value, path, inner, below, sizes)
    elif isinstance(node, yaml.SequenceNode):
        size += sum(_check_node(item, path, name, below, sizes) for item in node.value)
    if size > MAX_NODES:
        raise ConfigError(f"cannot read {path}: more than {MAX_NODES:,} values once references (*) are written out")
    sizes[id(node)] = size
    return size


def _check_twice(node: Any, path: Path, name: str) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        word, line = str(key.value), key.start_mark.line + 1
        if word in lines and key.tag != "tag:yaml.org,2002:merge":
            full = ".".join(filter(None, (name, word)))
            raise ConfigError(f"{path}: {full} is given twice, on lines {lines[word]} and {line}; keep one")
        lines[word] = line


def _check_values(value: Any, path: Path, name: str, *, numbered: bool) -> None:
    """Keys are words; numbers are finite and of an ordinary size."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str) and not (numbered and name and type(key) is int):
                raise ConfigError(f"{path}: the key {reprlib.repr(key)} of {name or 'the file'} is not a word")
            _check_values(item, path, f"{name}.{key}" if name else str(key), numbered=numbered)
    elif isinstance(value, list):
        for item in value:
            _check_values(item, path, name, numbered=numbered)
    elif isinstance(value, int) and abs(value) > LARGEST:
        raise ConfigError(f"{path}: {name} is a number of {value.bit_length()} bits; expected at most 64")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{path}: {name} is {value}; expected a finite number")
