"""Files of tfvan, written by tfvan: `PYTHON write_tfvan.py FOLDER`; `PYTHON write_tfvan.py FOLDER FILE` loads FILE.

PYTHON: 3.10 with `pip install tensorflow-cpu==2.9.3 'numpy<1.24' 'protobuf<3.20'` and `pip install --no-deps tfvan`
(1.0.0). Writes FOLDER/tfvan.h5 (save_weights), tfvan_whole.h5 (save), tfvan_eps.h5, the manifest and the outputs;
with FILE, FOLDER/golden/loaded.npz: what the port computes after load_weights.
"""

import sys
from pathlib import Path

import filled
import h5py
import numpy as np
import tensorflow as tf
from tfvan.model import Van


def network():
    tf.keras.backend.clear_session()
    sizes = filled.SIZES
    return Van(**sizes, weights=None, classes=filled.CLASSES, input_shape=(64, 96, 3), classifier_activation=None)


def outputs(model):
    images = filled.pictures().transpose(0, 2, 3, 1)
    both = tf.keras.Model(model.input, [model.get_layer("norm4").output, model.output])
    stage, logits = (each.numpy() for each in both(images))
    return {"stage4": stage.transpose(0, 3, 1, 2), "logits": logits}


def layers(path):
    with h5py.File(path) as file:
        return {
            str(name): [str(each) for each in file[name].attrs["weight_names"]] for name in file.attrs["layer_names"]
        }


def main(folder, given=None):
    model = network()
    if given:
        model.load_weights(given)
        filled.keep(folder, "loaded", outputs(model))
        return
    for salt in filled.SALTS:
        model.set_weights([filled.array(each.name, tuple(each.shape), salt) for each in model.weights])
        model.save_weights(str(folder / f"tfvan{'_' if salt else ''}{salt}.h5"), save_format="h5")
        filled.keep(folder, "tfvan", outputs(model), salt)
        if not salt:
            model.save(str(folder / "tfvan_whole.h5"), save_format="h5")
    shapes = {each.name: each.shape for each in model.weights}
    groups = layers(folder / "tfvan.h5")
    entries = {name: shapes[name] for names in groups.values() for name in names}
    source = f"tfvan 1.0.0 on tensorflow-cpu {tf.__version__}, numpy {np.__version__}"
    filled.describe(folder, "tfvan", source, entries, layers=groups)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
