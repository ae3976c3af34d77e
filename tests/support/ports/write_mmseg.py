"""Files of mmsegmentation 1.x `projects/van`, written by it: `PYTHON write_mmseg.py FOLDER CLONE [FILE …]`.

PYTHON: 3.11 with torch, `pip install mmengine mmcv-lite==2.1.0 ftfy prettytable` and
`pip install --no-deps mmsegmentation==1.2.2`; CLONE: a checkout of open-mmlab/mmsegmentation, for `projects/van`. The
compiled operations of mmcv are stubs: no VAN calls them. Writes FOLDER/mmseg_upernet.pth and mmseg_fpn.pth with
mmengine's `save_checkpoint` as its CheckpointHook calls it, mmseg_backbone.pth (a bare state dict, as the separate
backbone files), the manifests and the outputs. With FILEs, FOLDER/golden/loaded_KIND.npz after a strict
`load_checkpoint` of each, KIND being upernet, fpn or backbone as in the file's name.
"""

import importlib.machinery
import sys
import types
from pathlib import Path

import filled


class Stubs(types.ModuleType):
    """A module in which every name is an empty class."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


OPS = Stubs("mmcv.ops")
OPS.__spec__ = importlib.machinery.ModuleSpec("mmcv.ops", None)
sys.modules["mmcv.ops"] = OPS

import mmengine  # noqa: E402
import mmseg  # noqa: E402
import torch  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.logging import MessageHub  # noqa: E402
from mmengine.model import revert_sync_batchnorm  # noqa: E402
from mmengine.runner import load_checkpoint, save_checkpoint  # noqa: E402
from mmengine.runner.checkpoint import get_state_dict  # noqa: E402
from mmseg.registry import MODELS  # noqa: E402
from mmseg.utils import register_all_modules  # noqa: E402


def config(kind, clone):
    """The project's own base model, made small."""
    base = Config.fromfile(str(clone / "projects/van/configs/_base_/models" / f"van_{kind}.py")).model.to_dict()
    widths = list(filled.SIZES["embed_dims"])
    base["backbone"] |= {"embed_dims": widths, "depths": list(filled.SIZES["depths"]), "init_cfg": None}
    if kind == "upernet":
        base["decode_head"] |= {"in_channels": widths, "channels": 16, "num_classes": filled.CLASSES}
        base["auxiliary_head"] |= {"in_channels": widths[2], "channels": 8, "num_classes": filled.CLASSES}
    else:
        base["neck"] |= {"in_channels": widths, "out_channels": 16}
        base["decode_head"] |= {"in_channels": [16] * 4, "channels": 8, "num_classes": filled.CLASSES}
    return base


def outputs(model, kind):
    with torch.no_grad():
        images = torch.from_numpy(filled.pictures())
        if kind == "backbone":
            return {f"stage{i}": each.numpy() for i, each in enumerate(model(images), 1)}
        return {"logits": model._forward(images).numpy()}


def network(kind, clone):
    model = MODELS.build(config("upernet" if kind == "backbone" else kind, clone))
    model = revert_sync_batchnorm(model).eval()
    return model.backbone if kind == "backbone" else model


def training_state(model, built):
    """What mmengine's Runner saves: the weights, its configuration as text, the data set's names, its history."""
    hub = MessageHub.get_instance("written")
    hub.update_scalar("train/loss", 0.5)
    names = {"classes": ("ant", "bee", "cat", "dog", "eel"), "palette": [[i, 2 * i, 255 - i] for i in range(5)]}
    meta = {"epoch": 0, "iter": 160000, "cfg": Config({"model": built}).pretty_text, "seed": 1, "dataset_meta": names}
    meta |= {"experiment_name": "van", "time": "20230522_000000", "mmengine_version": mmengine.__version__}
    return {"meta": meta, "state_dict": get_state_dict(model), "message_hub": hub.state_dict()}


def main(folder, clone, *given):
    sys.path.insert(0, str(clone))
    register_all_modules()
    __import__("projects.van.backbones")
    for path in given:
        kind = next(each for each in ("upernet", "fpn", "backbone") if each in Path(path).name)
        model = network(kind, clone)
        load_checkpoint(model, str(path), map_location="cpu", strict=True)
        filled.keep(folder, f"loaded_{kind}", outputs(model, kind))
    for kind in () if given else ("upernet", "fpn", "backbone"):
        model = network(kind, clone)
        entries = {key: tuple(each.shape) for key, each in model.state_dict().items()}
        for salt in filled.SALTS:
            name = f"mmseg_{kind}{'_' if salt else ''}{salt}"
            state = {key: torch.from_numpy(each) for key, each in filled.state(entries, salt).items()}
            model.load_state_dict(state)
            tree = get_state_dict(model) if kind == "backbone" else training_state(model, config(kind, clone))
            save_checkpoint(tree, str(folder / f"{name}.pth"))
            filled.keep(folder, f"mmseg_{kind}", outputs(model, kind), salt)
        source = f"mmsegmentation {mmseg.__version__} projects/van on torch {torch.__version__}"
        filled.describe(folder, f"mmseg_{kind}", source, entries)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
