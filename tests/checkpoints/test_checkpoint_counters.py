"""BatchNorm's counters are in no file of old PyTorch or of other tools; they start at 0, and that is said."""

import json

import numpy as np
import published
import pytest
import torch
from networks import lived_in, tiny

import van
from van import checkpoints
from van.checkpoints import keys
from van.errors import CheckpointError, VanNotice

COUNTER = "num_batches_tracked"
NOTICE = rf"the file has no {COUNTER}; 14 counters of BatchNorm start at 0"
TABLES = {"van": keys.VAN, "official": keys.OFFICIAL, "mmpretrain": keys.MMPRETRAIN, "transformers": keys.TRANSFORMERS}


def arrays(*, counters):
    state = {key: tensor.numpy() for key, tensor in tiny().state_dict().items()}
    return {key: array for key, array in state.items() if counters or not key.endswith(COUNTER)}


def file(folder, name, state):
    state = {TABLES[name].foreign(key): array for key, array in state.items()}
    if name == "transformers":
        return published.transformers(folder / "hub", state, {"model_type": "van"})
    if name == "official":
        return published.official(folder / "x.pth", state)
    torch.save(published.tensors(state), folder / "x.pth")
    return folder / "x.pth"


@pytest.mark.promise("22")
@pytest.mark.parametrize("name", TABLES)
def test_every_format_without_counters(tmp_path, name):
    path = file(tmp_path, name, arrays(counters=False))
    with pytest.warns(VanNotice, match=NOTICE):
        model = van.load(path)
    state = model.state_dict()
    assert all(torch.equal(state[key], torch.from_numpy(array)) for key, array in arrays(counters=False).items())
    counted = [value for key, value in state.items() if key.endswith(COUNTER)]
    assert [(int(value), value.dtype) for value in counted] == [(0, torch.int64)] * 14
    model.train()(torch.zeros(2, 3, 64, 64))
    assert all(int(value) == 1 for key, value in model.state_dict().items() if key.endswith(COUNTER))


@pytest.mark.promise("22")
def test_safetensors_of_ours_and_a_segmenter(tmp_path):
    from safetensors.numpy import load_file, save_file

    sizes = {"embed_dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1), "mlp_ratios": (2, 2, 2, 2), "channels": 32}
    for model in (tiny(), lived_in(van.create_model("upernet_van_b0", auxiliary_channels=8, num_classes=3, **sizes))):
        van.save(model, tmp_path / "x.safetensors")
        with __import__("safetensors").safe_open(tmp_path / "x.safetensors", "np") as opened:
            metadata = opened.metadata()
        state = load_file(tmp_path / "x.safetensors")
        save_file({k: v for k, v in state.items() if not k.endswith(COUNTER)}, tmp_path / "x.safetensors", metadata)
        with pytest.warns(VanNotice, match=rf"no {COUNTER}"):
            again = van.load(tmp_path / "x.safetensors")
        assert again.state_dict().keys() == model.state_dict().keys()


@pytest.mark.promise("22")
def test_a_file_that_lacks_some_of_its_counters_is_damaged(tmp_path):
    state = arrays(counters=True)
    del state["backbone.stages.1.blocks.0.norm1.num_batches_tracked"]
    with pytest.raises(CheckpointError, match=r"1 missing: block2\.0\.norm1\.num_batches_tracked"):
        van.load(file(tmp_path, "official", state))


@pytest.mark.promise("22")
def test_counters_of_another_whole_number_type(tmp_path):
    state = {k: v.astype(np.int32) if k.endswith(COUNTER) else v for k, v in arrays(counters=True).items()}
    found = checkpoints.read(file(tmp_path, "official", state))
    assert {v.dtype for k, v in found.arrays.items() if k.endswith(COUNTER)} == {np.dtype(np.int64)}


@pytest.mark.promise("22")
def test_info_and_convert_say_it(tmp_path):
    path = file(tmp_path, "official", arrays(counters=False))
    assert any(COUNTER in note for note in van.info(path).notes)
    done = van.convert(path, tmp_path / "y.safetensors", to="van")
    assert any(COUNTER in note for note in done.notes)
    assert json.dumps(done.notes)
