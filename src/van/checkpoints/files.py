"""Opening and writing files: what a file is, is read off its bytes; writing replaces a whole file or nothing."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError
from ..files import atomic_output, read_json, why_no_file, why_no_path, write_file
from . import folders, msgpack, pickled_arrays
from .checkpoint import Arrays, Content
from .widened import Widened, bfloat16_note

SUFFIXES = folders.SUFFIXES

MOST_EXPANSION = 64  # of a compressed member of a .keras archive; weights that were trained hardly shrink

# suffix -> format of what `van export` writes, which engines run.
EXPORTED = {".onnx": "onnx", ".xml": "openvino", ".pt2": "torch"}


def open_content(path: Path) -> Content:
    """The opened file or folder; raises CheckpointError when it is missing, broken or no kind of checkpoint file."""
    if path.is_dir():
        return _open_folder(path)
    if path.name == folders.KERAS_WEIGHTS and all((path.parent / name).is_file() for name in folders.KERAS):
        return _open_unpacked(path)
    content = _open_file(path)
    if path.name not in folders.WEIGHTS:
        return content
    try:  # a file of a repository is what its folder is
        return replace(content, beside=_beside(path.parent))
    except CheckpointError as error:
        return replace(content, notes=(*content.notes, f"{error}; it is left out"))


def _open_file(path: Path) -> Content:
    if path.suffix.lower() in EXPORTED and path.is_file():
        raise CheckpointError(f"{path} is an exported network, not a checkpoint; use it with van.Predictor or van eval")
    container = container_of(path)
    if container == "hdf5":
        return Content(path=path, container=container, tree=path)
    if container == "keras":
        return _open_keras(path)
    if container == "safetensors":
        arrays, metadata, notes = read_safetensors(path)
        return Content(path=path, container=container, tree=arrays, metadata=metadata, notes=notes)
    if container == "pickle":
        return Content(path=path, container=container, tree=pickled_arrays.read(path))
    if container == "msgpack":
        tree, widened = msgpack.read(path.read_bytes())
        kept = (bfloat16_note(widened),) if widened else ()
        return Content(path=path, container=container, tree=tree, notes=kept)
    from . import torch_pickle

    tree, notes = torch_pickle.read(path)
    return Content(path=path, container=container, tree=tree, notes=notes)


def is_weights(path: Path) -> bool:
    """Whether a file may be a checkpoint by its name, which the .bin file beside an exported .xml file is not."""
    if path.name.startswith(".") or not path.name.endswith(SUFFIXES):
        return False
    return path.suffix != ".bin" or not path.with_suffix(".xml").exists()


def container_of(path: Path) -> str:
    """'torch', 'safetensors', 'hdf5', 'keras', 'pickle' or 'msgpack', from the first bytes.

    Raises CheckpointError for anything else.
    """
    if reason := why_no_file(path):
        if reason == "does not exist":
            raise CheckpointError(f"no such file or folder: {path}")
        raise CheckpointError(f"{path} {reason}; expected a checkpoint file")
    size = path.stat().st_size
    if not size:  # checked before it is opened: the kernel's pseudo-files have no size, and reading them may block
        raise CheckpointError(f"{path} is empty")
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    if not head:
        raise CheckpointError(f"{path} is empty")
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "hdf5"
    if len(head) > 8 and head[8:9] == b"{":
        if struct.unpack("<Q", head[:8])[0] > size - 8:
            raise CheckpointError(f"{path} is truncated: its header is longer than the file; download or save it again")
        return "safetensors"
    if head.startswith(b"PK"):
        return _zip_container(path)
    if head.startswith(b"\x80"):  # a bare pickle, as torch wrote before 1.6, and PaddlePaddle does
        return "pickle" if pickled_arrays.starts_like(head) else "torch"
    if msgpack.starts_like(head):
        return "msgpack"
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path} is a git-lfs pointer, not the weights; run git lfs pull")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise CheckpointError(f"{path} is a web page, not the weights; the download failed")
    if head[257:262] == b"ustar":
        raise CheckpointError(f"{path} is a tar archive; unpack it, and use the checkpoint in it")
    raise CheckpointError(f"{path} is not a checkpoint: expected a torch, safetensors, HDF5, PaddlePaddle or Flax file")


def _zip_container(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:  # a name that is no text, a version that does not exist: checkpoints.read says so
        raise CheckpointError(
            f"{path} is truncated or corrupt: a zip archive without its end; download or save it again"
        ) from None
    if any(name.endswith("/constants.pkl") for name in names):
        raise CheckpointError(f"{path} is a TorchScript archive; expected the weights that its training code saved")
    if any(name.endswith("data.pkl") for name in names):
        return "torch"
    if {*folders.KERAS} <= set(names):
        return "keras"
    weights = [name for name in names if name.endswith(SUFFIXES)]
    if weights:
        raise CheckpointError(f"{path} is a zip archive that contains {weights[0]}; unpack it and use that file")
    raise CheckpointError(f"{path} is a zip archive without weights that van reads: {', '.join(names[:5]) or 'empty'}")


def _open_folder(path: Path) -> Content:
    name, notes = folders.choose(path, [file for file in folders.names_in(path) if is_weights(path / file)])
    if name not in folders.WEIGHTS:  # the only one, a run's, or Keras's
        content = open_content(path / name)
        return replace(content, notes=(*content.notes, *notes))
    content = _open_shards(path / name) if name.endswith(".json") else _open_file(path / name)
    return replace(content, path=path, beside=_beside(path), notes=(*content.notes, *notes))


def _open_shards(index: Path) -> Content:
    arrays: Arrays = {}
    metadata: dict[str, Any] = {}
    notes: list[str] = []
    for part in _shards(index):
        content = _open_file(part)
        if not isinstance(content.tree, dict):
            raise CheckpointError(f"{part} holds no state dict")
        arrays.update(content.tree)
        metadata |= content.metadata
        notes += content.notes
    widened = sum(note.tensors for note in notes if isinstance(note, Widened))
    rest = [note for note in notes if not isinstance(note, Widened)]
    kept = ([bfloat16_note(widened)] if widened else []) + rest
    return Content(
        path=index, container=content.container, tree=arrays, metadata=metadata, notes=tuple(dict.fromkeys(kept))
    )


def _beside(folder: Path) -> dict[str, dict[str, Any]]:
    """What config.json and preprocessor_config.json hold, where they are there."""
    return {"config": _json(folder / "config.json"), "preprocessor": _json(folder / "preprocessor_config.json")}


def _open_unpacked(weights: Path) -> Content:
    """The weights of a .keras archive that was unpacked, with the config.json beside them."""
    config = _json(weights.with_name("config.json"))
    return Content(path=weights, container="hdf5", tree=weights, metadata={"config": config})


def _open_keras(path: Path) -> Content:
    """A .keras archive: the bytes of its HDF5 file and its config.json; nothing of it is run."""
    try:
        with zipfile.ZipFile(path) as archive:
            weights = _member(archive, folders.KERAS_WEIGHTS)
            config = json.loads(_member(archive, "config.json"))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except Exception as error:  # zipfile has many types for broken archives
        raise CheckpointError(f"{path} is truncated or corrupt: {' '.join(str(error).split())[:200]}") from error
    metadata = {"config": config if isinstance(config, dict) else {}}
    return Content(path=path, container="hdf5", tree=io.BytesIO(weights), metadata=metadata)


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of a member; raises CheckpointError where a few bytes would become very many."""
    part = archive.getinfo(name)
    if part.file_size > MOST_EXPANSION * (part.compress_size + 2**20):
        raise CheckpointError(f"{name} in it would grow from {part.compress_size} to {part.file_size} bytes")
    return archive.read(part)


def _shards(index: Path) -> list[Path]:
    return [index.parent / name for name in shards_of(index)]


def shards_of(index: Path) -> list[str]:
    """The files that the index of a model in several parts names; raises CheckpointError for an invalid index."""
    found = _json(index).get("weight_map")
    names = list(found.values()) if isinstance(found, dict) else []
    if not names or any(not isinstance(name, str) or Path(name).name != name or why_no_path(name) for name in names):
        raise CheckpointError(f"{index} names no weight files in its folder")
    return sorted(set(names))


def _json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    if reason := why_no_file(path):
        raise CheckpointError(f"{path} {reason}; expected a JSON file")
    try:
        value = read_json(path)
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a {type(value).__name__}; expected an object of named values")
    return value


def read_safetensors(path: Path) -> tuple[Arrays, dict[str, str], tuple[str, ...]]:
    """Arrays, metadata and notes of a safetensors file; bfloat16 becomes float32, which numpy has."""
    from safetensors import SafetensorError, deserialize, safe_open

    try:
        with safe_open(path, "np") as file:
            metadata = dict(file.metadata() or {})
            kinds = {key: file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118
            if "BF16" not in kinds.values():
                return {key: file.get_tensor(key) for key in kinds}, metadata, ()
        arrays = {name: _array(name, **spec) for name, spec in deserialize(path.read_bytes())}
    except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is truncated or corrupt: {error}") from error
    return arrays, metadata, (bfloat16_note(sum(kind == "BF16" for kind in kinds.values())),)


_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "U8": "<u1", "BOOL": "?"}


def _array(name: str, dtype: str, shape: list[int], data: bytes) -> np.ndarray:
    if dtype == "BF16":  # the upper half of a float32
        wide = np.frombuffer(data, "<u2").astype(np.uint32) << 16
        return wide.view(np.float32).reshape(shape)
    if dtype not in _DTYPES:
        raise CheckpointError(f"tensor {name} has the element type {dtype}, which van does not read")
    return np.frombuffer(bytearray(data), _DTYPES[dtype]).reshape(shape)


def write_safetensors(path: Path, arrays: Mapping[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Write arrays and metadata, whole or not at all."""
    from safetensors.numpy import save_file

    with atomic_output(path, error=CheckpointError) as temporary:
        save_file({key: np.require(array, requirements="C") for key, array in arrays.items()}, temporary, metadata)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object as JSON, whole or not at all."""
    write_file(path, json.dumps(value, indent=2) + "\n", error=CheckpointError)


def make_folder(path: Path) -> None:
    """Create a folder for a format that needs one; raises CheckpointError when the place is taken or closed."""
    try:
        path.mkdir(exist_ok=True)
    except FileExistsError:
        raise CheckpointError(f"cannot write a folder at {path}: a file is there; choose another name") from None
    except OSError as error:
        raise CheckpointError(f"cannot write the folder {path}: {error.strerror or error}") from error


def summarize_content(content: Content) -> str:
    """A few words on what the content is instead."""
    tree = content.tree
    if not isinstance(tree, Mapping):
        return f"it is a {type(tree).__name__}" if tree is not None else f"it is an {content.container} file"
    if not tree:
        return "it has no entries"
    names = ", ".join(str(key) for key in list(tree)[:5])
    return f"its first of {len(tree)} entries: {names}"
