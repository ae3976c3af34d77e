"""What the names in torch's pickles mean: tensors whose bytes are read later, numpy's values, inert stand-ins.

Source: torch/_utils.py of torch 1.0 to 2.14, numpy's and the codecs module's ways to pickle arrays.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import CheckpointError
from .pickles import Inert, Stateful, enter

# Names whose objects carry nothing that van reads.
_INERT = (
    "argparse.Namespace",
    "builtins.getattr",  # how a pickle spells HistoryBuffer's own functions
    "builtins.bytearray",
    "builtins.complex",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "mmengine.logging.history_buffer.HistoryBuffer.mean",
    "torch.Size",
    "torch.Tensor",
    "torch.device",
    "torch.nn.parameter.Parameter",
    "torch.serialization._get_layout",
    "numpy.ndarray",
)
# Also inert: pathlib's paths, what a defaultdict makes its values with, torch's tensor types and numpy's dtype classes.
_INERT_PATTERN = re.compile(
    r"pathlib(\._local)?\.(Pure)?(Posix|Windows)?Path|builtins\.(list|dict|int|float|bool|str|tuple)"
    r"|torch\.(cuda\.)?(sparse\.)?\w+Tensor|torch\.per_\w+|numpy\.dtypes\.\w+DType"
)
_AS_DICT = (
    "collections.OrderedDict",
    "collections.Counter",
    "collections.defaultdict",
    "mmcv.utils.config.ConfigDict",
    "mmengine.config.config.ConfigDict",
    "mmengine.config.ConfigDict",
    "addict.addict.Dict",
)
_AS_LIST = ("builtins.set", "builtins.frozenset", "collections.deque")
_NO_PLAIN_WEIGHT = re.compile(
    r"torch\._utils\._rebuild_(sparse\w*|qtensor|nested\w*|meta\w*|wrapper\w*|device\w*)(_tensor)?\w*"
)

# torch's name of an element type, as its storages and dtypes have it -> numpy's; bfloat16 is kept by its bits.
_STORAGES = {
    "Double": "<f8",
    "Float": "<f4",
    "Half": "<f2",
    "BFloat16": "bfloat16",
    "Long": "<i8",
    "Int": "<i4",
    "Short": "<i2",
    "Char": "|i1",
    "Byte": "|u1",
    "Bool": "|b1",
    "ComplexFloat": "<c8",
    "ComplexDouble": "<c16",
    "Untyped": "|u1",
}
_DTYPES = {
    **{"float64": "<f8", "float32": "<f4", "float16": "<f2", "bfloat16": "bfloat16", "bool": "|b1"},
    **{f"{sign}int{bits}": f"<{sign[:1] or 'i'}{bits // 8}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    **{"complex64": "<c8", "complex128": "<c16"},
}


@dataclass(frozen=True)
class Element:
    """A type of storage, or of its elements; numpy: None where numpy has no such type."""

    name: str
    numpy: str | None

    @property
    def dtype(self) -> np.dtype[Any]:
        """As its bits are read."""
        if self.numpy is None:
            raise CheckpointError(f"a tensor of type {self.name} is not a plain weight")
        return np.dtype("<u2" if self.numpy == "bfloat16" else self.numpy)


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor whose bytes are not read yet; offset, size, stride: in elements of its storage."""

    key: str
    start: int
    count: int
    element: Element
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class Storage:
    """A part of the bytes under `key`: `count` elements from element `start` on."""

    key: str
    element: Element
    count: int
    start: int = 0


class Array(Stateful):
    """A numpy array that gets its values with its state: version, shape, type, order, bytes."""

    def __init__(self, *arguments: object) -> None:
        self.values: np.ndarray | None = None

    def restore(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], _NumpyType):
            raise ValueError("a numpy array without its shape, type and bytes")
        _, shape, kind, column_major, data = state
        if kind.dtype is None or not isinstance(data, bytes | Encoded):
            return  # of Python objects: nothing that van reads
        flat = np.frombuffer(bytearray(bytes(data)), kind.dtype)
        self.values = flat.reshape(_whole(shape), order="F" if column_major else "C")


class _NumpyType(Stateful):
    """A numpy element type by its code, e.g. "f8"; dtype: None for anything but plain numbers and texts."""

    def __init__(self, code: object = "", *_: object) -> None:
        plain = isinstance(code, str) and re.fullmatch(r"[<>=|]?[?biufcSU]\d{0,6}", code)
        self.dtype = np.dtype(code) if plain and isinstance(code, str) else None

    def restore(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if self.dtype is not None and order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(order)


class Encoded(str):
    """Bytes that protocol 2 spells as a text: `_codecs.encode(text, "latin1")`."""

    __slots__ = ()

    def __new__(cls, text: object = "", *_: object) -> Encoded:
        return super().__new__(cls, text if isinstance(text, str) else "")

    def __bytes__(self) -> bytes:
        return self.encode("latin1")


def _scalar(kind: object, data: object = b"", *_: object) -> Any:
    if not isinstance(kind, _NumpyType) or kind.dtype is None or not isinstance(data, bytes | Encoded):
        return Inert()
    raw = bytes(data)
    if len(raw) != kind.dtype.itemsize:
        raise ValueError("a numpy number whose bytes do not fit its type")
    return np.frombuffer(raw, kind.dtype)[0]


def _as_dict(first: object = None, *_: object) -> dict[Any, Any]:
    """Of nothing, a dict, a list of pairs, or a defaultdict's factory."""
    made: dict[Any, Any] = {}
    pairs = list(first.items()) if isinstance(first, dict) else first if isinstance(first, list) else []
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise ValueError("a dict of something other than pairs")
    enter(made, [value for pair in pairs for value in pair])
    return made


def _as_list(first: object = None, *_: object) -> list[Any]:
    return list(first) if isinstance(first, list | tuple) else []


def _whole(values: Any) -> tuple[int, ...]:
    """Sizes or strides: a few whole numbers from 0 on; raises ValueError."""
    good = isinstance(values, list | tuple) and len(values) <= 32
    if not good or any(type(value) is not int or not 0 <= value < 2**62 for value in values):
        raise ValueError(f"a tensor has the sizes or strides {str(values)[:80]}")
    return tuple(values)


def _tensor(storage: object, offset: object, size: object, stride: object, *more: object) -> Tensor:
    """`torch._utils._rebuild_tensor`, `_v2` and `_v3`, which names its element type."""
    element = next((each for each in more if isinstance(each, Element)), None)
    if not isinstance(storage, Storage) or type(offset) is not int or not 0 <= offset < 2**62:
        raise ValueError("a tensor without a storage")
    if any(isinstance(each, dict) and each.keys() & {"conj", "neg"} for each in more):
        raise CheckpointError("a tensor that is conjugated or negated when it is read is not a plain weight")
    start, count, kind = storage.start, storage.count, storage.element
    if element is not None:  # of a storage of bytes
        scale = storage.element.dtype.itemsize
        start, count = (each * scale // element.dtype.itemsize for each in (start, count))
        kind = element
    return Tensor(storage.key, start, count, kind, offset, _whole(size), _whole(stride))


def _parameter(data: object, *_: object) -> object:
    return data


def _of_type(function: object, kind: object, arguments: object, *_: object) -> object:
    """`torch._tensor._rebuild_from_type_v2`: a tensor with attributes, which are left out."""
    if function not in (_tensor, _parameter) or not isinstance(arguments, tuple):
        raise CheckpointError("a tensor of a class of its own is not a plain weight")
    return _tensor(*arguments) if function is _tensor else _parameter(*arguments)


def _names() -> dict[str, Callable[..., Any]]:
    table: dict[str, Callable[..., Any]] = {
        "_codecs.encode": Encoded,
        "numpy.dtype": _NumpyType,
        "torch._tensor._rebuild_from_type_v2": _of_type,
        **{f"torch._utils._rebuild_tensor{version}": _tensor for version in ("", "_v2", "_v3")},
        **{f"torch._utils._rebuild_parameter{more}": _parameter for more in ("", "_with_state")},
        **dict.fromkeys(_INERT, Inert),
        **dict.fromkeys(_AS_DICT, _as_dict),
        **dict.fromkeys(_AS_LIST, _as_list),
    }
    for room in ("numpy.core.multiarray", "numpy._core.multiarray"):
        table |= {f"{room}._reconstruct": Array, f"{room}.scalar": _scalar}
    return table | {"torch.Size": _as_list}


_NAMES = _names()


def offered(name: str) -> Any:
    """What replaces a name in a pickle: something to call or an element type; None for other names."""
    if name in _NAMES:
        return _NAMES[name]
    if storage := re.fullmatch(r"torch\.(?:cuda\.|storage\._?)?(\w+)Storage", name):
        return Element(name, _STORAGES.get(storage[1]))
    if dtype := re.fullmatch(r"torch\.((?:float|bfloat|u?int|bool|b?complex|q|quint|bits)\w*)", name):
        return Element(name, _DTYPES.get(dtype[1]))
    if _NO_PLAIN_WEIGHT.fullmatch(name):
        raise CheckpointError(f"a tensor made by {name} is not a plain weight")
    return Inert if _INERT_PATTERN.fullmatch(name) else None


def storage_of(identity: Any) -> Storage:
    """The storage of a persistent id: ("storage", type, key, place, number of elements[, view])."""
    good = isinstance(identity, tuple) and len(identity) in (5, 6) and identity[0] == "storage"
    if not good or not isinstance(identity[1], Element) or type(identity[4]) is not int or identity[4] < 0:
        raise ValueError("a value that is not a storage")
    view = identity[5] if len(identity) == 6 else None
    if view is None:
        return Storage(str(identity[2])[:100], identity[1], identity[4])
    if not isinstance(view, tuple) or len(view) != 3 or any(type(each) is not int or each < 0 for each in view[1:]):
        raise ValueError("a view of a value that is not a storage")
    return Storage(str(identity[2])[:100], identity[1], view[2], start=view[1])
