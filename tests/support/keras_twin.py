"""A Keras 3 twin of the network, for tests alone: run in a process of its own on a folder.

    python keras_twin.py FOLDER

FOLDER has config.json, images.npy (NHWC) and ours.weights.h5. It gets ours.npy, the logits of the weights in that file;
then twin.weights.h5, other weights as Keras saves them, and twin.npy, their logits.
The layer tree is the one that van/checkpoints/keras.py describes.
"""

import json
import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"

import numpy as np

import keras
from keras import layers


def pad(kernel, dilation=1):
    return layers.ZeroPadding2D(((kernel - 1) * dilation + 1) // 2)


def batch_norm(name):
    return layers.BatchNormalization(epsilon=1e-5, momentum=0.9, name=name)


class PatchEmbed(layers.Layer):
    def __init__(self, width, kernel, stride, **options):
        super().__init__(**options)
        self.pad = layers.ZeroPadding2D(kernel // 2)
        self.proj = layers.Conv2D(width, kernel, stride, name="proj")
        self.norm = batch_norm("norm")

    def call(self, x, training=False):
        return self.norm(self.proj(self.pad(x)), training=training)


class Gate(layers.Layer):
    def __init__(self, width, near, far, dilation, **options):
        super().__init__(**options)
        self.pad_near, self.pad_far = pad(near), pad(far, dilation)
        self.conv0 = layers.DepthwiseConv2D(near, name="conv0")
        self.conv_spatial = layers.DepthwiseConv2D(far, dilation_rate=dilation, name="conv_spatial")
        self.conv1 = layers.Conv2D(width, 1, name="conv1")

    def call(self, x):
        return x * self.conv1(self.conv_spatial(self.pad_far(self.conv0(self.pad_near(x)))))


class Attention(layers.Layer):
    def __init__(self, width, near, far, dilation, **options):
        super().__init__(**options)
        self.proj_1 = layers.Conv2D(width, 1, name="proj_1")
        self.spatial_gating_unit = Gate(width, near, far, dilation)
        self.proj_2 = layers.Conv2D(width, 1, name="proj_2")

    def call(self, x):
        return x + self.proj_2(self.spatial_gating_unit(keras.activations.gelu(self.proj_1(x), approximate=False)))


class Mlp(layers.Layer):
    def __init__(self, width, hidden, **options):
        super().__init__(**options)
        self.fc1 = layers.Conv2D(hidden, 1, name="fc1")
        self.pad, self.dwconv = pad(3), layers.DepthwiseConv2D(3, name="dwconv")
        self.drop = layers.Dropout(0.1)  # its random state is in the file as well
        self.fc2 = layers.Conv2D(width, 1, name="fc2")

    def call(self, x, training=False):
        x = keras.activations.gelu(self.dwconv(self.pad(self.fc1(x))), approximate=False)
        return self.fc2(self.drop(x, training=training))


class Block(layers.Layer):
    def __init__(self, width, hidden, near, far, dilation, **options):
        super().__init__(**options)
        self.norm1, self.attn = batch_norm("norm1"), Attention(width, near, far, dilation)
        self.norm2, self.mlp = batch_norm("norm2"), Mlp(width, hidden)
        for i in (1, 2):
            scale = self.add_weight(shape=(width,), initializer="random_uniform", name=f"layer_scale_{i}")
            setattr(self, f"layer_scale_{i}", scale)

    def call(self, x, training=False):
        x = x + self.layer_scale_1 * self.attn(self.norm1(x, training=training))
        return x + self.layer_scale_2 * self.mlp(self.norm2(x, training=training), training=training)


def twin(config):
    x = images = layers.Input((None, None, config["in_chans"]))
    near, far = 2 * config["dilation"] - 1, -(-config["kernel_size"] // config["dilation"])
    for s, width in enumerate(config["embed_dims"]):
        patch, stride = config["patch_sizes"][s], config["strides"][s]
        x = PatchEmbed(width, patch, stride, name=f"patch_embed{s + 1}")(x)
        for j in range(config["depths"][s]):
            hidden = int(width * config["mlp_ratios"][s])
            x = Block(width, hidden, near, far, config["dilation"], name=f"block{s + 1}_{j}")(x)
        x = layers.LayerNormalization(epsilon=config["layer_norm_eps"], name=f"norm{s + 1}")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    if config["num_classes"]:
        x = layers.Dense(config["num_classes"], name="head")(x)
        x = layers.Activation("linear", name="pred")(x)
    return keras.Model(images, x, name="twin")


def randomise(model):
    """Weights, statistics and layer scales of order one, so that a swap of any two tensors would show."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if weight.name in ("gamma", "moving_variance"):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif weight.name == "kernel":
            depthwise = weight.shape[-1] == 1
            fan_in = np.prod(weight.shape[:2] if depthwise else weight.shape[:-1])
            weight.assign(rng.standard_normal(weight.shape) / np.sqrt(fan_in))
        else:
            weight.assign(rng.uniform(-0.5, 0.5, weight.shape))


def main(folder):
    model = twin(json.loads((folder / "config.json").read_text()))
    images = np.load(folder / "images.npy")

    def logits(name):
        np.save(folder / name, keras.ops.convert_to_numpy(model(images)))

    model.load_weights(folder / "ours.weights.h5")
    logits("ours.npy")
    randomise(model)
    model.save_weights(folder / "twin.weights.h5")
    logits("twin.npy")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
