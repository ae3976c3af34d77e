"""MessagePack as Flax writes it: maps of text keys, and arrays as (shape, name of the type, bytes) in extension 1.

Only what can stand in a file of weights is read. Nothing is made that the file does not hold: every length is compared
with the bytes that are left. Sources: the MessagePack specification; flax/serialization.py.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..errors import CheckpointError

DEEPEST = 40
_ARRAY, _NUMBER = 1, 3  # Flax's extensions: an array, a numpy number, stored alike
_TYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
_FIXED = {0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q"}
_FIXED |= {0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
_LENGTHS = {"B": 1, "H": 2, "I": 4}


def starts_like(head: bytes) -> bool:
    """Whether the first bytes of a file are a map of a few text keys."""
    return len(head) > 2 and 0x81 <= head[0] <= 0x8F and (0xA1 <= head[1] <= 0xBF or head[1] == 0xD9)


def read(data: bytes) -> tuple[Any, int]:
    """The value of a whole file, and how many of its arrays were widened from bfloat16; raises ValueError."""
    reader = _Reader(memoryview(data))
    value = reader.value(0)
    if reader.place != len(data):
        raise ValueError("something follows its values")
    return value, reader.widened


class _Reader:
    def __init__(self, data: memoryview) -> None:
        self.data, self.place, self.widened = data, 0, 0

    def take(self, count: int) -> memoryview:
        if count > len(self.data) - self.place:
            raise ValueError("it ends within a value")
        self.place += count
        return self.data[self.place - count : self.place]

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def length(self, first: int, kinds: Mapping[int, str]) -> int:
        return int(self.number(f">{kinds[first]}"))

    def value(self, depth: int) -> Any:
        """The value at this place."""
        if depth > DEEPEST:
            raise ValueError(f"it is nested too deeply; expected at most {DEEPEST} levels")
        first = self.take(1)[0]
        if first < 0x80 or first >= 0xE0:
            return first if first < 0x80 else first - 0x100
        if first < 0x90 or first in (0xDE, 0xDF):
            count = first & 15 if first < 0x90 else self.length(first, {0xDE: "H", 0xDF: "I"})
            return self.mapping(count, depth)
        if first < 0xA0 or first in (0xDC, 0xDD):
            count = first & 15 if first < 0xA0 else self.length(first, {0xDC: "H", 0xDD: "I"})
            return [self.value(depth + 1) for _ in range(count)]
        if first < 0xC0 or first in (0xD9, 0xDA, 0xDB):
            count = first & 31 if first < 0xC0 else self.length(first, {0xD9: "B", 0xDA: "H", 0xDB: "I"})
            return str(self.take(count), "utf-8")
        if first in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[first]
        if first in (0xC4, 0xC5, 0xC6):
            return self.take(self.length(first, {0xC4: "B", 0xC5: "H", 0xC6: "I"}))
        return self.number(_FIXED[first]) if first in _FIXED else self.extension(first, depth)

    def mapping(self, count: int, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for _ in range(count):
            name = self.value(depth + 1)
            if not isinstance(name, str):
                raise ValueError(f"it has a {type(name).__name__} for a key; expected a text")
            if name in found:
                raise ValueError(f"it holds {name[:80]!r} twice")
            found[name] = self.value(depth + 1)
        return found

    def extension(self, first: int, depth: int) -> np.ndarray:
        """One of Flax's arrays."""
        if 0xD4 <= first <= 0xD8:
            count = 1 << (first - 0xD4)
        elif 0xC7 <= first <= 0xC9:
            count = self.length(first, {0xC7: "B", 0xC8: "H", 0xC9: "I"})
        else:
            raise ValueError(f"it holds the byte {first:#x} where a value begins")
        kind, inner = self.number(">b"), _Reader(self.take(count))
        if kind not in (_ARRAY, _NUMBER):
            raise CheckpointError(f"it holds an extension of type {kind}; expected Flax's arrays")
        stated = inner.value(depth + 1)
        if inner.place != count or not isinstance(stated, list) or len(stated) != 3:
            raise ValueError("it holds an array without its shape, type and bytes")
        return self.array(*stated)

    def array(self, shape: Any, name: Any, data: Any) -> np.ndarray:
        good = isinstance(shape, list) and len(shape) <= 32 and all(type(n) is int and n >= 0 for n in shape)
        if not good or not isinstance(data, memoryview):
            raise ValueError("it holds an array without its shape, type and bytes")
        if name not in _TYPES:
            raise CheckpointError(f"it holds an array of type {str(name)[:80]}, which van does not read")
        dtype = np.dtype("<u2" if name == "bfloat16" else name).newbyteorder("<")
        if math.prod(shape) * dtype.itemsize != len(data):
            raise ValueError(f"it holds an array of shape {tuple(shape)} with {len(data):,} bytes")
        array = np.frombuffer(bytearray(data), dtype).reshape(shape)
        if name != "bfloat16":
            return array
        self.widened += 1
        return (array.astype(np.uint32) << 16).view(np.float32)


def pieces(value: Any) -> Iterator[bytes]:
    """The bytes of maps, texts and arrays as Flax writes them."""
    if isinstance(value, str):
        data = value.encode()
        yield (bytes([0xA0 | len(data)]) if len(data) < 32 else b"\xdb" + struct.pack(">I", len(data))) + data
    elif isinstance(value, np.ndarray):
        shape = b"".join(b"\xce" + struct.pack(">I", size) for size in value.shape)
        data = value.astype(value.dtype.newbyteorder("<"), copy=False).tobytes()
        name = b"".join(pieces(value.dtype.name))
        inner = b"\x93" + bytes([0x90 | value.ndim]) + shape + name + b"\xc6" + struct.pack(">I", len(data))
        yield b"\xc9" + struct.pack(">Ib", len(inner) + len(data), _ARRAY) + inner
        yield data
    else:
        yield b"\xdf" + struct.pack(">I", len(value)) if len(value) > 15 else bytes([0x80 | len(value)])
        for name, each in value.items():
            yield from pieces(name)
            yield from pieces(each)
