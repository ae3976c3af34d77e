"""Our own record in an exported file, read without the runtime that would load the rest: nothing of the network is run.

Sources: onnx.proto (field numbers), OpenVINO's IR (rt_info), the zip archive that torch.export writes.
"""

from __future__ import annotations

import mmap
import xml.parsers.expat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...checkpoints.files import EXPORTED
from ...errors import CheckpointError
from ..description import KEY

DESCRIPTION, WEIGHTS = "description", "weights"  # in OpenVINO's rt_info: the JSON text, the checksum of the .bin file
EXTRA_FILE = f"{KEY}.json"  # of torch.export's archive
MOST_BYTES = 2**26  # of a record, and of an .xml file's tags
MOST_MESSAGES = 5_000_000  # in an .onnx file

# What may hold tensors in ONNX's messages: field number -> what stands there.
_ONNX: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function", 14: "property"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of a tensor
_NAME, _VALUE = 1, 2  # of a property


@dataclass(frozen=True)
class Record:
    """description: the JSON text, None where there is none; weights: the checksum of its .bin file, of an .xml."""

    description: str | None
    weights: str | None = None


def record_of(path: Path) -> Record:
    """The record in a file, by its suffix; raises CheckpointError, or what libraries raise, for a broken file."""
    return {"onnx": _onnx, "openvino": _openvino, "torch": _torch}[EXPORTED[path.suffix.lower()]](path)


def _torch(path: Path) -> Record:
    with zipfile.ZipFile(path) as archive:
        extra = [entry for entry in archive.infolist() if entry.filename.endswith(f"extra/{EXTRA_FILE}")]
        if not extra:
            return Record(None)
        if len(extra) > 1 or extra[0].file_size > MOST_BYTES:
            raise CheckpointError(f"{path} holds {len(extra)} records of {extra[0].file_size:,} bytes; expected one")
        return Record(archive.read(extra[0]).decode())


def _openvino(path: Path) -> Record:
    """The values below net/rt_info/van. Entities are refused: they could stand for gigabytes, or for other files."""
    found: dict[str, str] = {}
    where: list[str] = []
    parser = xml.parsers.expat.ParserCreate()

    def start(name: str, attributes: dict[str, str]) -> None:
        where.append(name)
        if where[:-1] == ["net", "rt_info", KEY] and name in (DESCRIPTION, WEIGHTS):
            found[name] = attributes.get("value", "")

    def refuse(*_: Any) -> None:
        raise CheckpointError(f"{path} declares a document type, which no file of `van export` does")

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda name: where.pop()
    parser.StartDoctypeDeclHandler = refuse
    if path.stat().st_size > MOST_BYTES:
        raise CheckpointError(f"{path} has {path.stat().st_size:,} bytes; expected the tags of a network")
    parser.Parse(path.read_bytes(), True)
    return Record(found.get(DESCRIPTION), found.get(WEIGHTS))


def _onnx(path: Path) -> Record:
    """The property of our key. Tensors in other files are refused: ours hold all, and a path could lead anywhere."""
    found = None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        waiting, visited = [("model", 0, len(data))], 0
        while waiting:
            kind, start, end = waiting.pop()
            visited += 1
            if visited > MOST_MESSAGES:
                raise ValueError(f"it has more than {MOST_MESSAGES:,} messages")
            if kind == "property":
                pair = {number: data[a:b] for number, a, b in _fields(data, start, end) if b - a <= MOST_BYTES}
                found = pair.get(_VALUE, b"") if pair.get(_NAME) == KEY.encode() else found
                continue
            for number, a, b in _fields(data, start, end):
                if kind == "tensor" and (number == _EXTERNAL_DATA or (number == _DATA_LOCATION and a)):
                    raise CheckpointError(f"{path} keeps tensors in other files, which no file of `van export` does")
                if inner := _ONNX.get(kind, {}).get(number):
                    waiting.append((inner, a, b))
    return Record(None if found is None else found.decode())


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, start, end) of every field of a protocol buffer between two places; of a number: (number, value, 0)."""
    place = start
    while place < end:
        tag, place = _varint(data, place, end)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, place = _varint(data, place, end)
            yield number, value, 0
            continue
        if kind == 2:
            size, place = _varint(data, place, end)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"its protocol buffer has a field of kind {kind}")
        if size > end - place:
            raise ValueError("its protocol buffer ends within a field")
        if kind == 2:
            yield number, place, place + size
        place += size


def _varint(data: mmap.mmap, place: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= end:
            raise ValueError("its protocol buffer ends within a number")
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError("its protocol buffer has a number of more than 64 bits")
