"""Files of jax-models, written by its code: `PYTHON write_flax.py FOLDER [FILE]`; FILE is loaded instead.

PYTHON: 3.11 or newer with `pip install jax flax tqdm requests` and `pip install --no-deps jax-models` (0.0.5). Writes
FOLDER/flax.weights and flax_eps.weights with the port's `save_trained_params`, the manifest and the outputs. The port
has the tanh approximation of GELU; `logits` are computed with GELU as the published weights were trained,
`logits_tanh` as the port does. With FILE, FOLDER/golden/loaded.npz: what it computes after `load_trained_params`.
"""

import sys
from pathlib import Path

import filled
import flax
import flax.linen as nn
import jax
import numpy as np
from flax.core import freeze
from flax.traverse_util import flatten_dict, unflatten_dict
from jax_models.models.helper import load_trained_params, save_trained_params
from jax_models.models.van import VAN

TANH = nn.gelu


def computed(model, variables):
    images = filled.pictures().transpose(0, 2, 3, 1)
    found = {}
    for name, gelu in (("logits", lambda x: TANH(x, approximate=False)), ("logits_tanh", TANH)):
        nn.gelu = gelu
        found[name] = np.asarray(model.apply(variables, images, True))
    return found


def main(folder, given=None):
    jax.config.update("jax_default_matmul_precision", "highest")
    model = VAN(**filled.SIZES, num_classes=filled.CLASSES)
    if given:
        variables = load_trained_params(str(given))
        used = {"params": variables["params"], "batch_stats": variables["batch_stats"]}
        filled.keep(folder, "loaded", computed(model, used))
        return
    drawn = model.init(jax.random.PRNGKey(0), np.zeros((1, 64, 96, 3), np.float32), True)
    entries = {"/".join(path): each.shape for path, each in flatten_dict(drawn).items()}
    for salt in filled.SALTS:
        state = filled.state(entries, salt)
        variables = freeze(unflatten_dict({tuple(key.split("/")): each for key, each in state.items()}))
        save_trained_params(variables, str(folder / f"flax{'_' if salt else ''}{salt}.weights"))
        filled.keep(folder, "flax", computed(model, variables), salt)
    source = f"jax-models 0.0.5 on jax {jax.__version__}, flax {flax.__version__}"
    filled.describe(folder, "flax", source, entries)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
