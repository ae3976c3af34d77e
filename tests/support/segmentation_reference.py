"""Segmenters on the reference checkpoints, and small ones for everything that needs no reference."""

import functools
import re

import torch
from reference_data import entries, fill
from reference_data import state as published_state
from torch.nn import functional as F

from van.checkpoints.keys import MMSEG
from van.configs.segmenter import SEGMENTERS
from van.nn.segmenter import Segmenter

# golden -> (manifest, our name, LayerNorm epsilon of its generation)
GOLDENS = {
    "mmseg_lightham_van_tiny_d256": ("mmseg_lightham_van_tiny_d256", "light_ham_van_b0_d256", 1e-6),
    "mmseg_lightham_van_base": ("mmseg_lightham_van_base", "light_ham_van_b2", 1e-6),
    "mmseg_hamnet_os8_van_tiny": ("mmseg_hamnet_os8_van_tiny", "hamnet_van_b0", 1e-6),
    "mmseg_fpn_van_tiny": ("mmseg_fpn_van_tiny", "semantic_fpn_van_b0", 1e-6),
    "mmseg_fpn_van_b0_2022_07": ("mmseg_fpn_van_tiny", "semantic_fpn_van_b0", 1e-5),
    "mmseg_upernet_van_tiny": ("mmseg_upernet_van_tiny", "upernet_van_b0", 1e-6),
    "mmseg_upernet_van_b0_2022_07": ("mmseg_upernet_van_tiny", "upernet_van_b0", 1e-5),
}

# What the heads' published keys are called here, applied in this order.
RENAMED = (
    (r"\.(gn|bn)\.", ".norm."),
    (r"conv_seg\.", "classify.conv."),
    (r"^decode_head\.(hamburger\.)?ham_in\.conv", "decode_head.hamburger.lower"),
    (r"^decode_head\.(hamburger\.)?ham_out\.conv", "decode_head.hamburger.upper"),
    (r"^decode_head\.(hamburger\.)?ham_out\.norm", "decode_head.hamburger.norm"),
    (r"conv_cat", "join"),
    (r"psp_modules\.(\d)\.1", r"pooling.convs.\1"),
    (r"head\.bottleneck", "head.pooling.join"),
    (r"lateral_convs", "laterals"),
    (r"fpn_convs", "outputs"),
    (r"fpn_bottleneck", "join"),
    (r"^(neck\.\w+\.\d)\.conv", r"\1"),
    (r"scale_heads\.(\d)\.(\d)", lambda match: f"branches.{match[1]}.convs.{int(match[2]) // 2}"),
    (r"^auxiliary_head\.convs\.0", "auxiliary_head.conv"),
    (r"^auxiliary_head", "auxiliary"),
    (r"^decode_head", "head"),
)

METHODS = {
    "light_ham": "light_ham_van_b0_d256",
    "hamnet": "hamnet_van_b0",
    "upernet": "upernet_van_b0",
    "semantic_fpn": "semantic_fpn_van_b0",
}


def our_key(key):
    if key.startswith("backbone."):
        return MMSEG.canonical(key)
    for pattern, new in RENAMED:
        key = re.sub(pattern, new, key)
    return key


@functools.cache
def reference_state(manifest):
    return {our_key(key): torch.from_numpy(array) for key, array in published_state(manifest).items()}


def reference_model(golden, dtype=torch.float32):
    """The segmenter of a golden with its filled weights and the bases that its original was given."""
    manifest, name, eps = GOLDENS[golden]
    model = Segmenter(SEGMENTERS[name].with_options(layer_norm_eps=eps)).eval()
    assert len(entries(manifest)) == len(reference_state(manifest))
    found = model.load_state_dict(reference_state(manifest), strict=False)
    assert not found.unexpected_keys
    assert [key.split(".")[-1] for key in found.missing_keys] in ([], ["bases"])
    model.to(dtype)
    for key, bases in model.named_buffers():
        if key.endswith("bases"):
            bases.copy_(reference_bases(1, *bases.shape, dtype=dtype)[0])
    return model


def reference_bases(n, channels, rank, *, dtype):
    raw = torch.from_numpy(fill("ham_bases", (n, channels, rank), "bases"))
    return F.normalize(raw.to(dtype), dim=1)


def small(method, *, seed=0, **options):
    """A segmenter of the method with a few thousand parameters, in eval mode."""
    config = SEGMENTERS[METHODS[method]].with_options(
        embed_dims=(8, 16, 24, 32),
        depths=(1, 1, 1, 1),
        mlp_ratios=(2, 2, 2, 2),
        channels=32,
        ham_rank=4,
        neck_channels=32,
        auxiliary_channels=32,
        **{"num_classes": 5, "ham_channels": 32, **options},
    )
    torch.manual_seed(seed)
    model = Segmenter(config)
    for name, value in model.named_parameters():  # classifiers start at 0.01, layer scales too: too quiet to see
        if "classify.conv.weight" in name or name.endswith(("scale1", "scale2")):
            torch.nn.init.normal_(value, std=0.3)
    for name, value in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            value.uniform_(0.5, 1.5) if name.endswith("var") else value.normal_(std=0.3)
    return model.eval()
