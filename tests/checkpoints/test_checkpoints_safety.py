"""Files that are broken, hostile or something else: one line, nothing run."""

import argparse
import json
import pickle
import pickletools
import struct
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np
import published
import pytest
import torch
from checkpoint_files import checkpoint, theirs, write

import van
from van import checkpoints
from van.checkpoints import keys, python_config, torch_pickle
from van.errors import CheckpointError, UnsafeFileError


class Hostile:
    """Runs a command when it is unpickled, unless somebody is careful."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        import os

        return os.system, (self.command,)


# What the hub lists for the authors' files, and nothing else ("Detected Pickle imports (5)").
HUB_IMPORTS = {
    "collections.OrderedDict",
    "argparse.Namespace",
    "torch.LongStorage",
    "torch.FloatStorage",
    "torch._utils._rebuild_tensor_v2",
}


def imports_of(path):
    """Names that the pickle in a zip of torch asks for; nothing is run."""
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
        operations = pickletools.genops(archive.read(name))
    return {argument.replace(" ", ".") for operation, argument, _ in operations if operation.name == "GLOBAL"}


def hub_file(path, **more):
    """As timm's saver wrote the authors' files: weights, counters, optimizer and options of the run."""
    weights = published.tensors(theirs(keys.OFFICIAL))
    counters = {key: torch.zeros((), dtype=torch.int64) for key in weights if key.endswith("num_batches_tracked")}
    moments = {"step": 5, "exp_avg": torch.zeros(3), "exp_avg_sq": torch.zeros(3)}
    torch.save(
        {
            "epoch": 309,
            "arch": "van_tiny",
            "state_dict": OrderedDict(weights | counters),
            "optimizer": {"state": {0: moments}, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999)}]},
            "version": 2,
            "args": argparse.Namespace(model="van_tiny", lr=1e-3, aa="rand-m9-mstd0.5-inc1"),
            "metric": 75.4,
            **more,
        },
        path,
    )
    return path


def test_the_five_imports_that_the_hub_lists_for_the_authors_files(tmp_path):
    path = hub_file(tmp_path / "van_tiny_754.pth.tar")
    assert imports_of(path) == HUB_IMPORTS
    found = checkpoints.read(path)
    assert found.format == "official"
    assert van.load(path).num_classes == found.num_classes
    path = hub_file(tmp_path / "more.pth.tar", amp_scaler=Hostile("true"))
    assert len(imports_of(path) - HUB_IMPORTS) == 1
    with pytest.raises(UnsafeFileError, match="nothing was run"):
        van.load(path)


def hostile_files(folder):
    payload = Hostile(f"touch {folder / 'executed'}")
    tree = {"state_dict": published.tensors(theirs(keys.OFFICIAL)), "args": payload}
    torch.save(tree, folder / "zip.pth")
    torch.save(tree, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(tree, folder / "protocol4.pth", pickle_protocol=4)
    torch.save(tree, folder / "protocol4legacy.pth", pickle_protocol=4, _use_new_zipfile_serialization=False)
    for protocol in (0, 2, 4, 5):
        (folder / f"plain{protocol}.pth").write_bytes(pickle.dumps(payload, protocol))
    return sorted(folder.iterdir())


def test_hostile_pickles_are_refused_and_named(tmp_path):
    for path in hostile_files(tmp_path):
        if path.name == "plain0.pth":  # the text protocol: not a torch file at all
            with pytest.raises(CheckpointError, match="is not a checkpoint"):
                van.load(path)
            continue
        with pytest.raises(
            UnsafeFileError, match=r"needs '(posix|os|nt)\.system' to be unpickled.*nothing was run"
        ) as error:
            van.load(path)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "executed").exists()


def test_the_hostile_files_are_really_hostile(tmp_path):
    torch.load(hostile_files(tmp_path)[-1], weights_only=False)
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["builtins.eval", "builtins.exec", "subprocess.Popen", "numpy.load", "torch.load"])
def test_other_globals_are_refused(tmp_path, name):
    module, attribute = name.rsplit(".", 1)
    target = getattr(__import__(module), attribute)
    reduced = type("Calls", (), {"__reduce__": lambda self: (target, ("1",))})
    torch.save({"state_dict": {}, "x": reduced()}, tmp_path / "x.pth")
    with pytest.raises(UnsafeFileError, match=f"needs '.*{attribute}' to be unpickled"):
        van.load(tmp_path / "x.pth")


def test_a_pickled_module_is_refused_with_advice(tmp_path):
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 2)), tmp_path / "x.pth")
    with pytest.raises(UnsafeFileError, match=r"'torch\.nn\.modules.*it pickles a whole module; .*state_dict"):
        van.load(tmp_path / "x.pth")


@pytest.fixture
def mmengine(monkeypatch):
    """The classes whose objects OpenMMLab's runners leave in checkpoints, with their real names and pickling."""
    name = "mmengine.logging.history_buffer"
    module = types.ModuleType(name)

    class HistoryBuffer:
        def __init__(self):
            self._log_history, self._count_history = np.arange(3.0), np.ones(3, np.int64)
            self._statistics_methods = {"mean": HistoryBuffer.mean}

        def mean(self):
            return 0

        def __setstate__(self, state):
            raise AssertionError("unpickled for real")

    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = name, "HistoryBuffer"
    HistoryBuffer.mean.__module__, HistoryBuffer.mean.__qualname__ = name, "HistoryBuffer.mean"
    module.HistoryBuffer = HistoryBuffer
    config = types.ModuleType("mmcv.utils.config")

    class ConfigDict(dict):
        def __getstate__(self):
            return {"cfg": 1}

    ConfigDict.__module__, ConfigDict.__qualname__ = "mmcv.utils.config", "ConfigDict"
    config.ConfigDict = ConfigDict
    for part, stub in (
        ("mmengine", types.ModuleType("mmengine")),
        ("mmengine.logging", types.ModuleType("mmengine.logging")),
        (name, module),
        ("mmcv", types.ModuleType("mmcv")),
        ("mmcv.utils", types.ModuleType("mmcv.utils")),
        ("mmcv.utils.config", config),
    ):
        monkeypatch.setitem(sys.modules, part, stub)
    return module, config


def test_openmmlab_log_buffers_are_inert(tmp_path, mmengine):
    buffers, config = mmengine
    hub = {"message_hub": {"log_scalars": {"loss": buffers.HistoryBuffer()}, "scalar": np.float64(1)}}
    tree = {
        "meta": {"cfg": config.ConfigDict(model=config.ConfigDict(type="x"))},
        "state_dict": published.tensors(theirs(keys.MMPRETRAIN)),
    }
    torch.save(tree | hub, tmp_path / "x.pth")
    for name in [name for name in sys.modules if name.startswith(("mmengine", "mmcv"))]:
        del sys.modules[name]
    found = checkpoints.read(tmp_path / "x.pth")
    assert found.format == "mmpretrain"
    read, _ = torch_pickle.read(tmp_path / "x.pth")
    assert vars(read["message_hub"]["log_scalars"]["loss"]) == {}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_harmless_pickle_of_another_protocol(tmp_path, protocol):
    torch.save(published.tensors(theirs(keys.OFFICIAL)), tmp_path / "x.pth", pickle_protocol=protocol)
    assert checkpoints.read(tmp_path / "x.pth").format == "official"


def test_nothing_stays_allowed(tmp_path):
    van.load(published.official(tmp_path / "x.pth", theirs(keys.OFFICIAL)))
    ours = [item for item in torch.serialization.get_safe_globals() if isinstance(item, tuple)]
    assert ours == []  # what is left are classes that torch adds to its own list
    with pytest.raises(pickle.UnpicklingError, match=r"argparse\.Namespace"):
        torch.load(tmp_path / "x.pth", weights_only=True)


# -- broken files


@pytest.mark.parametrize("name", ["van", "official", "legacy", "transformers", "keras"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_truncated(tmp_path, name, share):
    if name == "legacy":
        path = tmp_path / "x"
        torch.save(published.tensors(theirs(keys.OFFICIAL)), path, _use_new_zipfile_serialization=False)
    else:
        path = write(tmp_path, name)
    file = path / "model.safetensors" if path.is_dir() else path
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CheckpointError) as error:
        van.load(path)
    assert "\n" not in str(error.value)
    assert not isinstance(error.value, UnsafeFileError)


SOMETHING_ELSE = {
    b"": "is empty",
    b"hello, world": "is not a checkpoint",
    bytes(1000): "is not a checkpoint",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a": "git-lfs pointer",
    b"<!DOCTYPE html><html>Sign in</html>": "is a web page",
    b"\x80\x02}q\x00.": "truncated, corrupt or not a checkpoint",
    b"PK\x05\x06" + bytes(18): "zip archive without weights",
    b"\x89HDF\r\n\x1a\n" + bytes(100): "truncated or corrupt",
    struct.pack("<Q", 10) + b'{"a": 1}  ': "truncated or corrupt",
    struct.pack("<Q", 10**9) + b'{"a": 1}': "truncated",
}


@pytest.mark.parametrize("data", SOMETHING_ELSE, ids=range(len(SOMETHING_ELSE)))
def test_something_else(tmp_path, data):
    (tmp_path / "x.pth").write_bytes(data)
    with pytest.raises(CheckpointError, match=SOMETHING_ELSE[data]) as error:
        van.load(tmp_path / "x.pth")
    assert "\n" not in str(error.value)


def test_missing_file_and_empty_folder(tmp_path):
    with pytest.raises(CheckpointError, match="no such file or folder"):
        van.load(tmp_path / "nowhere.pth")
    with pytest.raises(CheckpointError, match="no checkpoint in the folder"):
        van.load(tmp_path)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"fc.weight": torch.zeros(2, 2)}, "holds no Visual Attention Network; its first of 1 entries: fc.weight"),
        ([torch.zeros(2)], "it is a list"),
        (torch.zeros(2), "it is a ndarray"),
        ({}, "it has no entries"),
        ({"state_dict": {}}, "holds no Visual Attention Network"),
        ({"patch_embed1.proj.weight": "text", "block1.0.norm1.weight": 3}, "is a str; expected a tensor"),
    ],
)
def test_torch_files_of_other_things(tmp_path, tree, message):
    torch.save(tree, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=message):
        van.load(tmp_path / "x.pth")


def test_a_torchscript_archive(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/data.pkl", b"")
        archive.writestr("x/constants.pkl", b"")
    with pytest.raises(CheckpointError, match="TorchScript archive"):
        van.load(tmp_path / "x.pt")


def test_broken_json_beside_the_weights(tmp_path):
    folder = write(tmp_path, "transformers")
    for text, message in (("{", "is not valid JSON"), ("[]", "holds a list")):
        (folder / "config.json").write_text(text)
        with pytest.raises(CheckpointError, match=message):
            van.load(folder)


def test_one_key_under_two_spellings(tmp_path):
    state = published.tensors(theirs(keys.OFFICIAL))
    torch.save(state | {"module.head.bias": state["head.bias"]}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"'head\.bias' is in the state dict twice"):
        van.load(tmp_path / "x.pth")
    state = published.tensors(theirs(keys.TRANSFORMERS))
    key = "van.encoder.stages.00.normalization.bias"
    torch.save(state | {key: state[key.replace("00", "0")]}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="is in the state dict twice"):
        van.load(tmp_path / "x.pth")


def test_sparse_and_quantised_tensors_are_no_weights(tmp_path):
    state = published.tensors(theirs(keys.OFFICIAL))
    torch.save(state | {"head.weight": state["head.weight"].to_sparse()}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="is not a plain weight"):
        van.load(tmp_path / "x.pth")


def test_safetensors_metadata_of_others(tmp_path):
    from safetensors.numpy import save_file

    arrays = checkpoint().arrays
    save_file(arrays, tmp_path / "x", {"format": "pt"})
    assert checkpoints.read(tmp_path / "x").origins["layer_norm_eps"] == "lineage"
    save_file(arrays, tmp_path / "x", {"config": "{"})
    with pytest.raises(CheckpointError, match="metadata is not valid JSON"):
        van.load(tmp_path / "x")
    save_file(arrays, tmp_path / "x", {"config": json.dumps([1])})
    with pytest.raises(CheckpointError, match="van record cannot be used"):
        van.load(tmp_path / "x")


def test_configuration_text_is_never_run(tmp_path):
    text = f"import os\nos.system('touch {tmp_path / 'executed'}')\n"
    text += "a = [1, -2.5]\nb = dict(c=a, d={'e': None}, f=open('x'))\n"
    assert python_config.parse(text) == {"a": [1, -2.5], "b": {"c": [1, -2.5], "d": {"e": None}, "f": None}}
    assert python_config.at(python_config.parse(text), "b", "d", "e") is None
    assert python_config.at({"a": 1}, "a", "b") is None
    assert python_config.parse("(" * 10_000) == {}
    assert python_config.parse(3) == {}
    assert not (tmp_path / "executed").exists()
