"""Small networks with all that files carry, and small real images to compare on."""

import numpy as np
from networks import lived_in
from PIL import Image

import van
from van.images.preprocess import Preprocess
from van.nn.hamburger import factorisations

SUFFIX = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
CLASSES = ("ant", "bee", "cat", "dog", "élan")
PALETTE = ((1, 2, 3), (4, 5, 6), (7, 8, 9), (10, 11, 12), (13, 14, 15))


def picture(height=50, width=70, seed=0):
    """Smooth enough that neighbouring pixels resemble each other."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


PICTURES = [picture(seed=seed) for seed in range(3)]


def classifier(**options):
    """Two stages of a few thousand parameters, in eval mode: exporters take seconds per stage."""
    sizes = {"embed_dims": (8, 16), "depths": (1, 1), "mlp_ratios": (4, 2), "patch_sizes": (7, 3), "num_classes": 5}
    model = lived_in(van.create_model("van_b0", **{**sizes, **options})).eval()
    model.classes = CLASSES if model.num_classes == len(CLASSES) else None
    channels = model.config.in_chans
    statistics = {"mean": (0.4, 0.5, 0.6)[:channels], "std": (0.2, 0.3, 0.4)[:channels]}
    model.preprocess = Preprocess(size=(48, 40), crop_pct=1.0, **statistics) if channels in (1, 3) else None
    model.provenance = {"recipe": "none", "scores": {"val/top1": 12.5}}
    return model


def segmenter(method="light_ham", **options):
    """A few thousand parameters; bases that are bases."""
    sizes = {"embed_dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1), "mlp_ratios": (2, 2, 2, 2), "channels": 32}
    heads = {"ham_channels": 32, "ham_rank": 4, "neck_channels": 16, "num_classes": len(CLASSES)}
    model = lived_in(van.create_model(f"{method}_van_b0", **{**sizes, **heads, **options})).eval()
    for module in factorisations(model):
        module.reset_bases(3)
    if model.num_classes == len(CLASSES):
        model.classes, model.palette = CLASSES, PALETTE
    model.provenance = {"inference": {"resize": None, "window": 48, "stride": 32}}
    return model
