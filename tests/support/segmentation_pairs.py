"""Folders of images and label maps."""

import numpy as np
from PIL import Image


def make_pairs(root, images, masks, mask_suffix="", image_suffix=""):
    for folder, suffix in ((images, image_suffix or ".jpg"), (masks, mask_suffix or ".png")):
        (root / folder).mkdir(parents=True)
        for i in range(2):
            Image.fromarray(np.ones((4, 4), np.uint8)).save(root / folder / f"{i}{suffix}")
