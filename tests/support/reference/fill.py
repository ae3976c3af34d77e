"""Deterministic tensors from names: the synthetic "checkpoints" behind the golden files.

A tensor depends on (salt, name, shape, role) and nothing else, so a whole checkpoint can be rebuilt from a
manifest without storing it:  state = {e["key"]: fill(e["key"], e["shape"], e["role"]) for e in manifest["entries"]}

Random bits: numpy Generator(PCG64(int(sha256(salt + name)[:16], big endian))), drawn in float64, in C order,
rounded once to float32.  The values are scaled so that VAN (up to 108 blocks) keeps activations of order one.
"""

import hashlib
import math
import re

import numpy as np

ROLES = ("weight", "kernel", "bias", "gain", "mean", "var", "scale", "counter", "bases")
_BLOCK = re.compile(r"(?:blocks?\d|layers)[./](\d+)[./]")  # index of a block inside its stage, any format


def role(name, shape):
    """Role of a tensor, from its key and shape (torch, mmcv, Hugging Face and Keras spellings)."""
    leaf = re.split(r"[./]", name.split(":")[0])[-1]
    if leaf == "num_batches_tracked":
        return "counter"
    if leaf in ("running_mean", "moving_mean"):
        return "mean"
    if leaf in ("running_var", "moving_variance"):
        return "var"
    if leaf in ("layer_scale_1", "layer_scale_2") or name.endswith("_scaling.weight"):
        return "scale"
    if leaf in ("bias", "beta"):
        return "bias"
    if leaf == "kernel":
        return "kernel"  # Keras layout: (..., in, out)
    if leaf in ("weight", "gamma"):
        return "weight" if len(shape) > 1 else "gain"  # torch layout: (out, in, ...)
    raise ValueError(f"no role known for {name!r} {tuple(shape)!r}")


def _rng(name, salt):
    digest = hashlib.sha256((salt + name).encode("utf-8")).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


def fill(name, shape, kind=None, salt=""):
    """float32 array (int64 zeros for a counter) of `shape` for the tensor `name`."""
    shape = tuple(int(n) for n in shape)
    kind = kind or role(name, shape)
    if kind == "counter":
        return np.zeros(shape, np.int64)
    rng = _rng(name, salt)
    if kind in ("weight", "kernel"):  # N(0, 1/fan_in)
        fan_in = math.prod(shape[1:] if kind == "weight" else shape[:-1])
        out = rng.standard_normal(shape) / math.sqrt(fan_in)
    elif kind in ("bias", "mean"):  # N(0, 0.1^2)
        out = 0.1 * rng.standard_normal(shape)
    elif kind == "gain":  # U(0.5, 1.5)
        out = 0.5 + rng.random(shape)
    elif kind == "var":  # U(0.5, 1.5) * (1 + 0.6 * block index in its stage)
        block = _BLOCK.search(name)
        out = (0.5 + rng.random(shape)) * (1.0 + 0.6 * int(block.group(1)) if block else 1.0)
    elif kind == "scale":  # +-U(0.2, 0.8)
        out = 0.2 + 0.6 * rng.random(shape)
        out = np.where(rng.random(shape) < 0.5, -out, out)
    elif kind == "bases":  # U(0, 1), before any normalisation
        out = rng.random(shape)
    else:
        raise ValueError(f"unknown role {kind!r}")
    return out.astype(np.float32)


def image(name, shape, salt=""):
    """float32 N(0, 1) input; `name` is the input's name in index.json (the shape is part of the seed)."""
    tag = f"image:{name}:" + "x".join(str(int(n)) for n in shape)
    return _rng(tag, salt).standard_normal(tuple(int(n) for n in shape)).astype(np.float32)
