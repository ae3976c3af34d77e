"""What the writers of this folder share: one small network, its deterministic weights, an image, and what is kept.

The writers run in the Python of a port, which has numpy and neither torch nor van.
"""

import json
import re
import sys
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
if str(FOLDER.parent) not in sys.path:
    sys.path.insert(0, str(FOLDER.parent))

from reference.fill import fill, image  # noqa: E402

# Eleven blocks in a stage: from the eleventh on a port that writes no dot between the two numbers is ambiguous.
SIZES = {"embed_dims": (8, 16, 24, 32), "mlp_ratios": (8, 8, 4, 4), "depths": (1, 2, 11, 1)}
CLASSES = 5
SALTS = ("", "eps")

_ROLES = {
    **dict.fromkeys(("kernel", "depthwise_kernel", "weights"), "kernel"),
    **dict.fromkeys(("bias", "beta"), "bias"),
    **dict.fromkeys(("gamma", "scale"), "gain"),
    **dict.fromkeys(("mean", "moving_mean", "running_mean", "_mean"), "mean"),
    **dict.fromkeys(("var", "moving_variance", "running_var", "_variance"), "var"),
    **dict.fromkeys(("layer_scale_1", "layer_scale_2"), "scale"),
    "num_batches_tracked": "counter",
}
_BLOCK = r"block\d\D?\d+[./]"
# Factors of the small-signal weights, in which epsilons move the outputs; those of reference/index.json.
_SMALL = (
    ("scale", ".*", 0.003),
    ("gain", r".*patch_embed\d[./]norm[./].*", 0.003),
    ("bias", r".*patch_embed\d[./]norm[./].*", 0.003),
    ("var", f".*{_BLOCK}.*", 1e-5),
    ("mean", f".*{_BLOCK}.*", 0.003),
)


def array(key, shape, salt=""):
    """The tensor of a port's key; a function of key, shape and salt alone."""
    name = key.removesuffix(":0")
    leaf = re.split(r"[./]", name)[-1]
    role = ("weight" if len(shape) > 1 else "gain") if leaf == "weight" else _ROLES[leaf]
    # (kh, kw, C, 1) of Keras's depthwise kernels: the values of (kh, kw, 1, C), which have the usual size
    drawn = (*shape[:2], shape[3], shape[2]) if leaf == "depthwise_kernel" else shape
    values = fill(name, drawn, role, salt).reshape(shape)
    if salt == "eps":
        for kind, pattern, factor in _SMALL:
            if kind == role and re.fullmatch(pattern, name):
                return values * np.float32(factor)
    return values


def state(entries, salt=""):
    """Key -> tensor of a manifest's entries, in their order."""
    return {key: array(key, tuple(shape), salt) for key, shape in entries.items()}


def pictures(height=64, width=96):
    """Two images (2, 3, H, W)."""
    return image("x", (2, 3, height, width))


def keep(folder, name, outputs, salt=""):
    """Write what the port computed."""
    path = Path(folder, "golden", f"{name}{'_' if salt else ''}{salt}.npz")
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **outputs)


def describe(folder, name, source, entries, **more):
    """Write a manifest: the port's keys and shapes, in its order."""
    path = Path(folder, "manifests", f"{name}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    shapes = {key: list(map(int, shape)) for key, shape in entries.items()}
    path.write_text(json.dumps({"source": source, **more, "entries": shapes}, indent=0) + "\n")


def manifest(name):
    """A manifest of this folder."""
    return json.loads((FOLDER / "manifests" / f"{name}.json").read_text())


def golden(name):
    """What a port computed on its filled weights."""
    with np.load(FOLDER / "golden" / f"{name}.npz") as file:
        return dict(file)
