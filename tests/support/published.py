"""Checkpoint files in the layouts in which the originals' tools publish them, made of plain arrays."""

import argparse
import json
from collections import OrderedDict

import numpy as np
import torch
from reference_data import fill_name, manifest


def tensors(state):
    return OrderedDict((key, torch.from_numpy(np.array(array))) for key, array in state.items())


def official(path, state, **more):
    """As timm 0.4.12's saver writes it: the Namespace of the run, the optimizer, numpy scalars."""
    weights = tensors(state)
    first = next(iter(weights.values()))
    torch.save(
        {
            "epoch": 309,
            "arch": "van_tiny",
            "state_dict": weights,
            "optimizer": {
                "state": {0: {"step": 5, "exp_avg": torch.zeros_like(first)}},
                "param_groups": [{"lr": 1e-3}],
            },
            "version": 2,
            "args": argparse.Namespace(model="van_tiny", lr=1e-3, mean=None, aa="rand-m9-mstd0.5-inc1", world_size=8),
            "amp_scaler": {"scale": 65536.0, "growth_factor": 2.0},
            "metric": np.float64(75.4),
            **more,
        },
        path,
    )
    return path


def lineage_22k(path, state, averaged=None):
    """As the ImageNet-22K code writes it."""
    tree = {"model": tensors(state), "optimizer": {}, "epoch": 89, "args": argparse.Namespace(drop_path=0.2)}
    torch.save(tree | ({"model_ema": tensors(averaged)} if averaged else {}), path)
    return path


def openmmlab(path, state, **meta):
    """As mmcv's and mmengine's savers write it; no meta: the bare state dict of the converters."""
    weights = tensors(state)
    torch.save({"meta": meta, "state_dict": weights, "optimizer": {"state": {}}} if meta else weights, path)
    return path


def transformers(folder, state, config, *, processor=None, shards=0):
    """`config.json` beside `pytorch_model.bin`, in several files on request."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    if processor:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    weights = tensors(state)
    if not shards:
        torch.save(weights, folder / "pytorch_model.bin")
        return folder
    keys, index = list(weights), {}
    for k in range(shards):
        name = f"pytorch_model-{k + 1:05}-of-{shards:05}.bin"
        part = OrderedDict((key, weights[key]) for key in keys[k::shards])
        torch.save(part, folder / name)
        index |= dict.fromkeys(part, name)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return folder


def hub_config(name):
    """The published config.json of a transformers manifest: with its 1000 labels."""
    labels = {str(i): f"class {i}" for i in range(1000)}
    return manifest(name)["config"] | {"id2label": labels, "label2id": {label: int(i) for i, label in labels.items()}}


def keras_port(path, state):
    """As `save_weights` of Keras 2 wrote it for the TensorFlow port: a group per layer, named weights inside."""
    h5py = __import__("h5py")
    layers = {}
    for key in state:
        top = key.split("/")[:2] if key.startswith("block") else key.split("/")[:1]
        layers.setdefault("/".join(top), []).append(key)
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.encode() for layer in [*layers, "pred"]]
        file.attrs["backend"], file.attrs["keras_version"] = b"tensorflow", b"2.15.0"
        for layer, names in layers.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name in names:
                group.create_dataset(name, data=state[name])
        file.create_group("pred").attrs["weight_names"] = []
        file.create_group("top_level_model_weights").attrs["weight_names"] = []
    return path


def written(name, folder, state):
    """The file or folder of a manifest's checkpoint, as its publisher lays it out."""
    kind = name.split("_")[0]
    if kind == "official":
        return official(folder / "file.pth.tar", state)
    if kind == "hf":
        return transformers(folder / "hub", state, hub_config(name))
    if kind == "keras":
        return keras_port(folder / "weights.h5", state)
    meta = {"mmpretrain": {}, "mmseg": {"mmseg_version": "0.21.1", "epoch": 1, "iter": 160000, "env_info": "sys"}}[kind]
    return openmmlab(folder / "file.pth", state, **meta)


__all__ = ["fill_name", "hub_config", "keras_port", "lineage_22k", "official", "openmmlab", "transformers", "written"]
