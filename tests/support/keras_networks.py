"""The smallest networks for tests of the Keras model."""

import numpy as np

import van
from van import checkpoints
from van.configs.backbone import VanConfig

TINY = VanConfig(embed_dims=(8, 16, 24, 32), depths=(1, 2, 1, 1), mlp_ratios=(4, 4, 2, 2), num_classes=7)


def checkpoint_of(config=TINY, seed=0, **fields):
    model = van.create_model("van_b0", seed=seed, **config.to_dict()).eval()
    rng = np.random.default_rng(seed)
    arrays = {}
    for k, (key, tensor) in enumerate(model.state_dict().items()):
        array = tensor.numpy()
        if key.endswith("num_batches_tracked"):
            arrays[key] = np.array(k, np.int64)
        elif key.endswith("running_var"):
            arrays[key] = rng.uniform(0.5, 1.5, array.shape).astype(np.float32)
        else:
            arrays[key] = (rng.standard_normal(array.shape) / max(array[0].size, 1) ** 0.5).astype(np.float32)
    fields = {"format": "van", "provenance": {"source": "test"}, **fields}
    return checkpoints.Checkpoint(arrays=arrays, config=model.config, **fields)
