"""Files in the layouts of the ports, made of plain arrays by nothing but numpy, h5py, pickle and struct.

`ports/` holds what the ports themselves computed, and the programs that ran them.
"""

import pickle
import struct

import numpy as np
import published
from ports import filled

CASES = ("tfvan", "paddle", "flax", "mmseg_upernet", "mmseg_fpn", "mmseg_backbone")
SUFFIX = {"tfvan": ".h5", "paddle": ".pdparams", "flax": ".weights"}


def state(case, salt=""):
    return filled.state(filled.manifest(case)["entries"], salt)


def write(folder, case, arrays, **more):
    """The file of a port with these arrays, whatever keys they have; its name says nothing of the format."""
    path = folder / f"file{SUFFIX.get(case, '.pth')}"
    if case == "tfvan":
        return tfvan(path, arrays, **more)
    if case == "paddle":
        return paddle(path, arrays, **more)
    if case == "flax":
        return flax(path, arrays, **more)
    meta = {} if case == "mmseg_backbone" else {"mmengine_version": "0.10.7", "iter": 160000}
    return published.openmmlab(path, arrays, **meta, **more)


def tfvan(path, arrays, *, root="", outer=""):
    """Keras 2's `save_weights`; root "model_weights": `save`. outer: the network is one layer of that name."""
    import h5py

    layers = {}
    for key in arrays:
        layers.setdefault(outer or key.split("/")[0], []).append(key)
    with h5py.File(path, "w") as file:
        home = file.create_group(root) if root else file
        home.attrs["layer_names"] = [name.encode() for name in ("input_1", *layers, "avg_pool", "pred")]
        home.attrs["backend"], home.attrs["keras_version"] = b"tensorflow", b"2.9.0"
        for layer in ("input_1", "avg_pool", "pred", "top_level_model_weights"):
            home.create_group(layer).attrs["weight_names"] = []
        for layer, names in layers.items():
            group = home.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name in names:
                group[name] = arrays[name]
    return path


def paddle(path, arrays, *, protocol=4, table=True, **more):
    """`paddle.save` of a state dict."""
    names = {"StructuredToParameterName@@": {key: f"parameter_{k}" for k, key in enumerate(arrays)}} if table else {}
    path.write_bytes(pickle.dumps({**arrays, **names, **more}, protocol))
    return path


def flax(path, arrays, **more):
    """`msgpack_serialize` of nested dicts."""
    tree = {}
    for key, array in arrays.items():
        *groups, leaf = key.split("/")
        place = tree
        for group in groups:
            place = place.setdefault(group, {})
        place[leaf] = array
    path.write_bytes(packed({**tree, **more}))
    return path


def packed(value):
    """MessagePack of dicts, texts, whole numbers and arrays, in the shortest forms, as the C packer writes them."""
    if isinstance(value, dict):
        head = bytes([0x80 | len(value)]) if len(value) < 16 else b"\xde" + struct.pack(">H", len(value))
        return head + b"".join(packed(key) + packed(each) for key, each in value.items())
    if isinstance(value, str):
        data = value.encode()
        return (bytes([0xA0 | len(data)]) if len(data) < 32 else b"\xd9" + bytes([len(data)])) + data
    if isinstance(value, int):
        return bytes([value]) if value < 128 else b"\xcd" + struct.pack(">H", value)
    shape = bytes([0x90 | value.ndim]) + b"".join(packed(int(size)) for size in value.shape)
    inner = b"\x93" + shape + packed(value.dtype.name) + _sized(b"\xc4\xc5\xc6", value.tobytes())
    return _sized(b"\xc7\xc8\xc9", inner, b"\x01")


def _sized(kinds, data, kind=b""):
    place = 0 if len(data) < 2**8 else 1 if len(data) < 2**16 else 2
    return kinds[place : place + 1] + struct.pack(">" + "BHI"[place], len(data)) + kind + data


def bfloat16(array):
    """The upper halves, and what they stand for."""
    upper = (array.view(np.uint32) >> 16).astype(np.uint16)
    return upper, (upper.astype(np.uint32) << 16).view(np.float32)
