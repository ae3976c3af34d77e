"""What of an HDF5 file may be read: data sets that lie in this very file, and no more bytes than it can hold."""

from __future__ import annotations

import math
from typing import Any

from ..errors import CheckpointError, UnsafeFileError
from .damage import growth_limit

DEEPEST = 40  # groups within groups
MOST_ATTRIBUTE_BYTES = 2**24


def datasets(file: Any) -> dict[str, Any]:
    """Path -> data set of an open h5py.File.

    Raises UnsafeFileError for a link, which could lead into another file; CheckpointError for what declares more than
    it has, or is no number.
    """
    found: dict[str, Any] = {}
    _walk(file, "", found, {hash(file.id)})
    left = growth_limit(file.id.get_filesize())
    for name, node in found.items():
        left -= node.size * node.dtype.itemsize
        if left < 0:
            raise CheckpointError(f"data set {name} of {file.filename} declares far more values than the file can hold")
    return found


def attribute(group: Any, name: str) -> Any:
    """An attribute's value; raises CheckpointError for one that declares more than names and a record take."""
    stated = group.attrs.get_id(name)
    if math.prod(stated.shape) * max(1, stated.dtype.itemsize) > MOST_ATTRIBUTE_BYTES:
        raise CheckpointError(f"its attribute {name!r} declares {stated.shape} values; expected a few names")
    return group.attrs[name]


def _walk(group: Any, prefix: str, found: dict[str, Any], seen: set[int]) -> None:
    """Enter the data sets below a group; h5py's own walk follows any depth until the process dies."""
    import h5py

    for name in group:
        path = f"{prefix}{name}"
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise UnsafeFileError(f"{path} is a link, perhaps into another file; such Keras files are refused")
        node = group[name]
        if isinstance(node, h5py.Group):
            if hash(node.id) in seen or path.count("/") >= DEEPEST:
                raise CheckpointError(f"the group {path[:200]} appears in two places, or is nested too deeply")
            seen.add(hash(node.id))
            _walk(node, f"{path}/", found, seen)
        elif isinstance(node, h5py.Dataset):
            _check(node, path)
            found[path] = node


def _check(node: Any, path: str) -> None:
    if node.external or node.is_virtual:
        raise UnsafeFileError(f"data set {path} is stored in another file; such Keras files are refused")
    if node.dtype.kind not in "fiubSV" or node.dtype.hasobject:
        raise CheckpointError(f"data set {path} holds {node.dtype}; expected numbers")
    stored, declared = node.id.get_storage_size(), node.size * node.dtype.itemsize
    if declared and not stored:
        raise CheckpointError(f"data set {path} of {node.file.filename} has no data; download or save the file again")
    if stored < declared and node.id.get_create_plist().get_nfilters() == 0:
        raise CheckpointError(
            f"data set {path} declares {declared:,} bytes and has {stored:,}; download or save the file again"
        )
