"""Shapes from a configuration and a configuration from shapes, without torch."""

import numpy as np
import pytest
import torch

from van.checkpoints import layout
from van.configs.backbone import ATTENTION_OPTIONS, VARIANTS, VanConfig, name_of
from van.errors import CheckpointError, UnknownNameError
from van.nn import Classifier

SMALL = VanConfig(embed_dims=(8, 16), depths=(1, 2), mlp_ratios=(4, 2), patch_sizes=(7, 3), num_classes=5)
CONFIGS = {
    **VARIANTS,
    **{f"b0_{kind}": VanConfig(attention=kind) for kind in ATTENTION_OPTIONS},
    "two stages": SMALL,
    "features": SMALL.with_options(num_classes=0),
    "one channel": SMALL.with_options(in_chans=1),
    "other kernels": SMALL.with_options(kernel_size=7, dilation=2, patch_sizes=(4, 2), strides=(4, 2)),
    "odd ratios": SMALL.with_options(embed_dims=(100, 30), mlp_ratios=(0.29, 2.5)),
}


def zeros(config):
    """Arrays of these shapes that take no memory."""
    return {key: np.broadcast_to(np.zeros((), np.float32), shape) for key, shape in layout.shapes(config).items()}


@pytest.mark.parametrize("name", CONFIGS)
def test_shapes_are_those_of_the_network(name):
    with torch.device("meta"):
        network = Classifier(CONFIGS[name]).state_dict()
    assert list(layout.shapes(CONFIGS[name]).items()) == [(key, tuple(value.shape)) for key, value in network.items()]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_is_read_off_its_shapes(name):
    config = CONFIGS[name]
    gate = config.attention if config.attention in ("add", "sigmoid", "none") else "lka"
    told = {"attention": gate} if gate != "lka" else {}
    found, origins = layout.config_of(zeros(config), metadata=told | {"strides": config.strides})
    assert layout.shapes(found) == layout.shapes(config)
    assert found.attention == config.attention
    assert (found.far_kernel, found.near_kernel) == (config.far_kernel, config.near_kernel)
    assert origins["embed_dims"] == origins["num_classes"] == "shapes"
    assert origins["strides"] == "metadata"
    assert origins["layer_norm_eps"] == "lineage"


def test_the_two_widths_of_b6():
    for name in ("van_b6", "van_b6_480"):
        assert name_of(layout.config_of(zeros(VARIANTS[name]))[0]) == name


def test_argument_beats_metadata_beats_lineage():
    arrays = zeros(SMALL)
    rules = {"lineage": {"layer_norm_eps": 1e-4}, "metadata": {"layer_norm_eps": 1e-5}}
    config, origins = layout.config_of(arrays, **rules, argument={"layer_norm_eps": 1e-3})
    assert (config.layer_norm_eps, origins["layer_norm_eps"]) == (1e-3, "argument")
    config, origins = layout.config_of(arrays, **rules)
    assert (config.layer_norm_eps, origins["layer_norm_eps"]) == (1e-5, "metadata")
    config, origins = layout.config_of(arrays, lineage=rules["lineage"])
    assert (config.layer_norm_eps, origins["layer_norm_eps"]) == (1e-4, "lineage")


@pytest.mark.parametrize(
    "option", [{"in_chans": 1}, {"depths": (1, 3)}, {"embed_dims": (8, 32)}, {"num_classes": 7}, {"attention": "no_dw"}]
)
def test_what_contradicts_the_shapes_is_an_error(option):
    (name,) = option
    with pytest.raises(CheckpointError, match=f"the argument {name}=.*contradicts the tensors"):
        layout.config_of(zeros(SMALL), argument=option)
    with pytest.raises(CheckpointError, match=f"the file's metadata {name}=.*contradicts the tensors"):
        layout.config_of(zeros(SMALL), metadata={"drop_rate": 0.1, **option})


def test_what_shapes_told_stays_told_by_shapes():
    _, origins = layout.config_of(zeros(SMALL), metadata=SMALL.to_dict())
    assert origins["depths"] == "shapes"
    assert origins["drop_path_rate"] == "metadata"


def test_a_kernel_of_the_same_shapes_may_be_named():
    config, _ = layout.config_of(zeros(SMALL), argument={"kernel_size": 20})  # ceil(20 / 3) = 7 as well
    assert config.kernel_size == 20


def test_an_unknown_option_is_an_error():
    with pytest.raises(UnknownNameError, match="did you mean 'drop_path_rate'"):
        layout.config_of(zeros(SMALL), argument={"drop_path_rat": 0.1})


def test_one_odd_tensor_is_outvoted_and_named():
    arrays = zeros(SMALL)
    for key, shape in {
        "backbone.stages.0.norm.weight": (9,),
        "backbone.stages.1.patch_embed.conv.weight": (16, 9, 3, 3),
    }.items():
        odd = arrays | {key: np.zeros(shape, np.float32)}
        config, _ = layout.config_of(odd)
        with pytest.raises(CheckpointError, match="1 of the wrong shape") as error:
            layout.check(odd, config)
        assert key in str(error.value)


def test_the_error_names_ten_keys_and_counts_the_rest():
    arrays = zeros(VARIANTS["van_b0"])
    lost = [key for key in arrays if key.startswith("backbone.stages.2.blocks.1.")]
    for key in lost:
        del arrays[key]
    with pytest.raises(CheckpointError) as error:
        layout.check(arrays, layout.config_of(arrays)[0])
    message = str(error.value)
    assert f"{len(lost)} missing" in message
    assert f"({len(lost) - 10} more)" in message
    assert sum(key in message for key in lost) == 10
    assert "\n" not in message


def test_weights_that_are_no_floating_point_numbers_are_an_error():
    arrays = zeros(SMALL) | {"head.bias": np.zeros(5, np.int64)}
    with pytest.raises(CheckpointError, match=r"1 of the wrong type: head\.bias"):
        layout.check(arrays, SMALL)


def test_no_network_at_all():
    with pytest.raises(CheckpointError, match="none of its keys belongs to a Visual Attention Network"):
        layout.config_of({"conv.weight": np.zeros(3)})
