"""The reference vectors in tests/reference: rebuilt checkpoints, inputs, and what the originals made of them."""

import functools
import hashlib
import json
import re
from pathlib import Path

import numpy as np
from reference.fill import fill, image, role

__all__ = ["entries", "fill", "golden", "image", "inputs", "manifest", "state"]

FOLDER = Path(__file__).parent / "reference"


@functools.cache
def index():
    return json.loads((FOLDER / "index.json").read_text())


@functools.cache
def manifest(name):
    return json.loads((FOLDER / "manifests" / f"{name}.json").read_text())


def fill_name(key):
    """A Keras key without what depends on the session; other formats' keys as they are."""
    return re.sub(r"/conv2d(_\d+)?/", "/", key.removesuffix(":0"))


def entries(name):
    return manifest(name)["entries"]


def state(name, salt=""):
    """The checkpoint of a manifest, key -> array; salt 'eps' gives the small-signal one."""
    return {key: _tensor(fill_name(key), shape, salt) for key, shape in entries(name).items()}


def _tensor(name, shape, salt):
    kind = role(name, shape)
    array = fill(name, shape, kind, salt)
    if salt == "eps":
        for rule in index()["multipliers"]["small_signal"]["rules"]:
            if kind in rule["roles"] and re.search(rule.get("key_regex", ""), name):
                return array * np.float32(rule["factor"])
    return array


def golden(name):
    with np.load(FOLDER / "golden" / f"{name}.npz") as file:
        return dict(file)


def inputs(name):
    """[(tag, array)] of a golden, as its original saw them (NCHW)."""
    row = next(row for row in index()["goldens"] if row["file"] == f"golden/{name}.npz")
    return [(spec["tag"], image(spec["name"], spec["shape"])) for spec in row["inputs"]]


def selftest():
    """Raise AssertionError unless the filler gives what it gave when the goldens were made."""
    for row in index()["fill_selftest"]:
        made = fill if row["call"] == "fill" else image
        extra = (row["role"], row["salt"]) if row["call"] == "fill" else ()
        array = made(row["name"], row["shape"], *extra)
        assert hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest() == row["sha256"], row["name"]
