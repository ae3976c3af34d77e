"""Counts: to the last digit of the reference, against a count by modules, and as `van info` shows them."""

import json

import pytest
import torch
from reference_data import FOLDER
from torch import nn

from van.cli import main
from van.configs.backbone import ATTENTION_OPTIONS, PUBLISHED, VARIANTS
from van.errors import ConfigError, UnknownNameError
from van.nn import Classifier
from van.tools import complexity, complexity_tables

COUNTS = json.loads((FOLDER / "counts.json").read_text())["classification"]
ROWS = [(key, "van_b6_480" if "480" in key else key.split("@")[0], 384 if "@384" in key else 224) for key in COUNTS]
SMALL = {"embed_dims": (8, 16, 24, 32), "depths": (1, 1, 2, 1), "num_classes": 5}


@pytest.mark.parametrize(("row", "name", "size"), ROWS, ids=[row for row, _, _ in ROWS])
def test_counts_of_the_reference(row, name, size):
    cost, want = complexity.describe(name, size=size), COUNTS[row]
    assert cost.parameters == want["parameters"]
    assert cost.macs == want["conv_linear_macs"]
    assert cost.mmcv == want["mmcv_get_model_complexity_info"]
    assert cost.mmcv_without_layer_norm == want["mmcv_without_layer_norm"]


@pytest.mark.parametrize("name", VARIANTS)
def test_counts_in_the_file(name):
    assert complexity_tables.counted_classifier(name) == complexity.describe(name), "run complexity.write_counted()"
    assert complexity_tables.counted_classifier(name, 256) is None


@pytest.mark.parametrize("name", VARIANTS)
def test_published_figures(name):
    cost = complexity.describe(name)
    assert cost.published == PUBLISHED[name][:2]
    assert cost.parameters / 1e6 == pytest.approx(cost.published[0], abs=0.05)
    assert abs(cost.deviation) < 3
    assert cost.mmcv_without_layer_norm / 1e9 == pytest.approx(cost.published[1], rel=0.03)


def counted(model, images):
    """Multiply-adds, outputs with a bias, elements of BatchNorms and of LayerNorms, from each module's output."""
    found = [0, 0, 0, 0]

    def add(module, _, output):
        elements = output.numel()
        if isinstance(module, nn.Conv2d):
            found[0] += elements * module.weight[0].numel()
            found[1] += elements * (module.bias is not None)
        found[0] += elements * module.in_features if isinstance(module, nn.Linear) else 0
        found[2] += elements * isinstance(module, nn.BatchNorm2d)
        found[3] += elements * isinstance(module, nn.LayerNorm)

    for module in model.modules():
        module.register_forward_hook(add)
    model(images)
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        *({"attention": option} for option in ATTENTION_OPTIONS),
        {"kernel_size": 28, "dilation": 4},
        {"patch_sizes": (7, 5, 5, 5)},
        {"in_chans": 1, "num_classes": 0},
        {"embed_dims": (8, 16, 24), "depths": (1, 2, 1), "mlp_ratios": (2, 2, 2), "patch_sizes": (7, 3, 3)},
    ],
    ids=str,
)
def test_against_a_count_by_modules(options):
    config = VARIANTS["van_b0"].with_options(**{**SMALL, **options})
    cost = complexity.describe(config, size=(75, 101))
    model = Classifier(config).eval()
    macs, bias, batch_norm, layer_norm = counted(model, torch.zeros(1, config.in_chans, 75, 101))
    assert cost.macs == macs
    assert cost.mmcv_without_layer_norm == macs + bias + 2 * batch_norm
    assert cost.mmcv == macs + bias + 2 * batch_norm + 2 * layer_norm
    assert cost.parameters == sum(p.numel() for p in model.parameters())
    running = [b.numel() for name, b in model.named_buffers() if "running" in name]
    assert cost.statistics == sum(running)
    assert cost.published is None


def test_per_stage_summary_of_the_keras_port():
    cost = complexity.describe("van_tiny")
    weights = {layer.name: layer.parameters + layer.statistics for layer in cost.layers}
    assert [weights[f"backbone.stages.{s}.patch_embed"] for s in range(4)] == [4864, 18752, 92960, 369920]
    assert [weights[f"backbone.stages.{s}.blocks.0"] for s in range(4)] == [25152, 89216, 303040, 755200]
    assert [weights[f"backbone.stages.{s}.norm"] for s in range(4)] == [64, 128, 320, 512]
    assert weights["head"] == 257000
    assert (sum(weights.values()), cost.statistics) == (4113224, 7424)
    assert [layer.name for layer in cost.layers[:3]] == [
        f"backbone.stages.0.{x}" for x in ("patch_embed", "blocks.0", "blocks.1")
    ]
    assert [layer.shape for layer in cost.layers if layer.name.endswith("patch_embed")] == [
        (32, 56, 56),
        (64, 28, 28),
        (160, 14, 14),
        (256, 7, 7),
    ]
    assert sum(layer.macs for layer in cost.layers) == cost.macs


def test_ablations():
    rows = {row.option: row for row in complexity.ablations()}
    assert {option: row.top1 for option, row in rows.items()} == {
        "lka": 75.4, "no_dw": 74.9, "no_dw_d": 74.1, "no_1x1": 74.6, "add": 74.6, "sigmoid": 75.2, "none": 74.3
    }  # fmt: skip
    whole = rows["lka"].complexity
    assert [option for option, row in rows.items() if row.complexity.published] == ["lka"]  # others were never counted
    widths, blocks, maps = (32, 64, 160, 256), (3, 3, 5, 2), (56, 28, 14, 7)
    for option, taps in (("no_dw", 25), ("no_dw_d", 49)):
        missing = sum(b * w * (taps + 1) for w, b in zip(widths, blocks, strict=True))
        assert rows[option].complexity.parameters == whole.parameters - missing
        saved = sum(b * w * taps * m * m for w, b, m in zip(widths, blocks, maps, strict=True))
        assert rows[option].complexity.macs == whole.macs - saved
    assert rows["no_1x1"].complexity.parameters == whole.parameters - sum(
        b * w * (w + 1) for w, b in zip(widths, blocks, strict=True)
    )


def test_kernels():
    rows = complexity.kernels()
    assert [row.top1 for row in rows] == [74.8, 75.3, 75.4, 75.4]
    assert rows[2].complexity == complexity.describe("van_b0")
    assert rows[3].meaning == "7x7 depthwise, 7x7 depthwise with dilation 4, 1x1"
    assert rows[0].complexity.parameters < rows[1].complexity.parameters < rows[3].complexity.parameters


@pytest.mark.parametrize("size", [0, (0, 224), (1, 2, 3), ()])
def test_impossible_sizes(size):
    with pytest.raises(ConfigError, match="expected the side of the image in pixels, or height and width"):
        complexity.describe("van_b0", size=size)


def test_unknown_model():
    with pytest.raises(UnknownNameError, match="unknown model 'van_b9'"):
        complexity.describe("van_b9")


class TestCommand:
    def test_a_model(self, capsys):
        assert main(["info", "van_b0"]) == 0
        out = capsys.readouterr().out
        for words in ("224 x 224", "32 x 56 x 56", "4,864", "369,920", "4,113,224", "4,105,800", "7,424", "0.864 G"):
            assert words in out
        assert "0.880 G in the published convention; published: 0.88 G" in out
        assert "multiply-adds: one per use of a weight" in out
        assert "ablations" not in out

    def test_another_size(self, capsys):
        assert main(["info", "van_b0", "--size", "75", "101"]) == 0
        out = capsys.readouterr().out
        assert "75 x 101" in out
        assert "256 x 3 x 4" in out
        assert "; published:" not in out

    def test_ablations(self, capsys):
        assert main(["info", "van_b0", "--ablations"]) == 0
        out = capsys.readouterr().out
        for words in ("sigmoid", "75.2", "3,829,768", "kernel_size=28, dilation=4", "879,427,328"):
            assert words in out

    def test_json(self, capsys):
        assert main(["info", "van-tiny", "--json", "--ablations"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["name"], found["parameters"], found["macs"]) == ("van_b0", 4105800, 864224000)
        assert found["layers"][0]["shape"] == [32, 56, 56]
        assert found["ablations"][1]["top1_of_van_b0"] == 74.9
        assert len(found["kernels"]) == 4

    def test_every_model(self, capsys):
        assert main(["info"]) == 0
        lines = {line.split("│")[1].strip(): line for line in capsys.readouterr().out.splitlines() if "│" in line}
        for name, (millions, giga, _) in PUBLISHED.items():
            assert f"{millions:g} M" in lines[name]
            assert f"{giga:g} G" in lines[name]
        assert "38.908 G" in lines["van_b6"]

    @pytest.mark.long
    def test_every_model_as_json(self, capsys):
        assert main(["info", "--json", "--size", "32"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert [row["name"] for row in found] == list(VARIANTS)
        assert found[0]["size"] == [32, 32]

    @pytest.mark.parametrize("size", [["0"], ["1", "2", "3"], ["big"]])
    def test_bad_sizes_take_one_line(self, size, capsys):
        assert main(["info", "van_b0", "--size", *size]) == 2
        error = capsys.readouterr().err
        assert error.startswith("van: error: ")
        assert error.count("\n") == 1
