"""D-FINE's configuration: published sizes, and refusals of what cannot be built."""

import pytest

from van.configs.dfine import DFINES
from van.configs.head_config import from_record
from van.errors import ConfigError

B0 = DFINES["dfine_van_b0"]


def test_sizes_are_those_of_the_official_configurations():
    shared = ("hidden_size", "queries", "heads", "points", "bins", "denoising_queries", "min_size")
    assert {tuple(getattr(config, name) for name in shared) for config in DFINES.values()} == {
        (256, 300, 8, (3, 6, 3), 32, 100, 640)
    }
    own = ("depth_multiplier", "expansion", "decoder_layers", "encoder_channels", "regression_scale")
    sizes = {name: tuple(getattr(config, field) for field in own) for name, config in DFINES.items()}
    assert sizes["dfine_van_b0"] == (0.34, 0.5, 3, 256, 4)
    assert sizes["dfine_van_b1"] == (0.67, 1, 4, 256, 4)
    assert sizes["dfine_van_b2"] == sizes["dfine_van_b3"] == (1, 1, 6, 256, 4)
    assert sizes["dfine_van_b4"] == sizes["dfine_van_b6"] == (1, 1, 6, 384, 8)


def test_records_give_the_configuration_back():
    config = B0.with_options(points=(1, 2, 3), queries=50, embed_dims=(8, 16, 24, 32))
    assert from_record(config.to_record()) == config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queries": 0}, "queries is 0; expected 1 to 65,536"),
        ({"hidden_size": 100}, "hidden_size is 100; expected a multiple of heads, 8"),
        (
            {"heads": 3, "hidden_size": 258, "encoder_channels": 258},
            "encoder_channels is 258; expected a multiple of 4",
        ),
        ({"points": (4, 4)}, r"points is \(4, 4\); expected 3 entries"),
        ({"points": (4, 0, 4)}, r"points is \(4, 0, 4\); expected 1 to 64"),
        ({"points": (4, 4.5, 4)}, "points is 4.5; every entry must be a whole number"),
        ({"points": 4}, "points is 4; expected 3 entries"),
        ({"bins": 7}, "bins is 7; expected an even number from 4"),
        ({"encoder_layers": -1}, "encoder_layers is -1; expected 0 to 64"),
        ({"denoising_queries": 2.5}, "denoising_queries is 2.5; every entry must be a whole number"),
        ({"label_noise": 1.5}, "label_noise is 1.5; expected 0 to 1"),
        ({"box_noise": -0.5}, "box_noise is -0.5; expected a number from 0"),
        ({"regression_scale": 0.0}, "regression_scale is 0.0; expected a positive number"),
        ({"expansion": 0.001}, "expansion is 0.001, which leaves no channels of 256"),
        ({"depth_multiplier": "deep"}, "depth_multiplier is 'deep'; expected a finite number"),
        ({"strides": (4, 2, 1, 2)}, r"last two strides are \(1, 2\); D-FINE joins maps of strides 1 : 2 : 4"),
        ({"min_size": 600}, "min_size is 600; expected a multiple of 32"),
        ({"min_size": 64}, "queries is 300, but images of 64 pixels give 84 places"),
    ],
)
def test_what_cannot_be_built_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        B0.with_options(**options)


def test_finer_backbones_leave_more_places_for_queries():
    config = B0.with_options(strides=(4, 1, 2, 2), min_size=64, queries=336)
    assert config.cells(64, 64) == config.queries == 16 * 16 + 8 * 8 + 4 * 4
    assert B0.cells(640, 320) == 80 * 40 + 40 * 20 + 20 * 10
