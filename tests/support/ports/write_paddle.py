"""Files of PaddleClas, written by it: `PYTHON write_paddle.py FOLDER`; `PYTHON write_paddle.py FOLDER FILE` loads FILE.

PYTHON: 3.11 with `pip install paddlepaddle==2.6.2 setuptools 'numpy<2'` and `pip install --no-deps paddleclas` (2.6.0),
of which the definition of the network and the functions that save and load are used. Writes FOLDER/paddle.pdparams and
paddle_eps.pdparams with `paddle.save`, paddle_2.pdparams with pickle protocol 2, the manifest and the outputs. With
FILE, FOLDER/golden/loaded.npz: what it computes after `load_dygraph_pretrain`; a key that is left over is an error.
"""

import importlib.util
import sys
import types
from pathlib import Path

import filled
import numpy as np
import paddle


def network():
    """The network of paddleclas, without the package's own imports, which need every data set library there is."""
    room = Path(importlib.util.find_spec("paddleclas").submodule_search_locations[0]) / "ppcls"
    for name in ("ppcls", "ppcls.arch", "ppcls.arch.backbone", "ppcls.arch.backbone.model_zoo", "ppcls.utils"):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [str(room.joinpath(*name.split(".")[1:]))]
    for name in ("logger", "download"):
        sys.modules[f"ppcls.utils.{name}"] = types.ModuleType(f"ppcls.utils.{name}")
    sys.modules["ppcls.utils"].logger = sys.modules["ppcls.utils.logger"]
    sys.modules["ppcls.utils.logger"].info = print
    sys.modules["ppcls.utils.download"].get_weights_path_from_url = None
    van = importlib.import_module("ppcls.arch.backbone.model_zoo.van")
    sizes = {name: list(values) for name, values in filled.SIZES.items()}
    norm = van.partial(van.nn.LayerNorm, epsilon=1e-6)  # as in VAN_B0 … VAN_B3
    model = van.VAN(**sizes, class_num=filled.CLASSES, norm_layer=norm)
    model.eval()
    return model, van.load_dygraph_pretrain


def outputs(model):
    with paddle.no_grad():
        return {"logits": model(paddle.to_tensor(filled.pictures())).numpy()}


def main(folder, given=None):
    model, load = network()
    if given:
        left = set(paddle.load(str(given))) ^ set(model.state_dict())
        if left - {"van"}:
            raise SystemExit(f"keys of one side only: {sorted(left)[:5]}")
        load(model, str(given))
        filled.keep(folder, "loaded", outputs(model))
        return
    entries = {key: tuple(each.shape) for key, each in model.state_dict().items()}
    for salt in filled.SALTS:
        model.set_state_dict({key: paddle.to_tensor(each) for key, each in filled.state(entries, salt).items()})
        paddle.save(model.state_dict(), str(folder / f"paddle{'_' if salt else ''}{salt}.pdparams"))
        filled.keep(folder, "paddle", outputs(model), salt)
        if not salt:
            paddle.save(model.state_dict(), str(folder / "paddle_2.pdparams"), protocol=2)
    source = f"paddleclas 2.6.0 on paddlepaddle {paddle.__version__}, numpy {np.__version__}"
    filled.describe(folder, "paddle", source, entries)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
