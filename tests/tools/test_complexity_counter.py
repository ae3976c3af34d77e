"""Parameters and operations of segmenters against the published tables and exact counts of the originals."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from van.configs.segmenter import SEGMENTERS
from van.tools.complexity import describe_segmenter
from van.tools.complexity_counter import count_operations
from van.tools.complexity_tables import PUBLISHED_SEGMENTERS, counted_segmenter

# Counted on the originals at 512 x 512: parameters with auxiliary head, conv + linear, matrix products, torchprofile.
EXACT = {
    "light_ham_van_b0_d256": (4208630, 5979701248, 301924352, 6469120002),
    "light_ham_van_b0": (4866134, 8666152960, 2420244480, 11278731266),
    "light_ham_van_b1": (14707286, 18582863872, 2564816896, 21357232130),
    "light_ham_van_b2": (27423958, 31631081472, 2564816896, 34427076610),
    "light_ham_van_b3": (45611094, 52176486400, 2564816896, 55002300418),
    "light_ham_van_b4": (61128662, 68991320064, 2564816896, 71841054722),
    "hamnet_van_b0": (11940236, 48014032896, 2564816896, 50790760450),
    "hamnet_van_b1": (24168172, 97797537792, 2564816896, 100603494402),
    "hamnet_van_b2": (36884844, 150682468352, 2564816896, 153559203842),
    "hamnet_van_b3": (55071980, 224754401280, 2564816896, 227734683650),
    "upernet_van_b0": (32133004, 214336208896, 0, 214689453568),
    "upernet_van_b1": (43836652, 223651299328, 0, 224013633536),
    "upernet_van_b2": (56553324, 236699516928, 0, 237083478016),
    "upernet_van_b3": (74740460, 257244921856, 0, 257658701824),
    "upernet_van_b4": (90258028, 274059755520, 0, None),
    "upernet_van_b5": (121890188, 300899500032, 0, None),
    "upernet_van_b6": (231481580, 413598744576, 0, None),
    "semantic_fpn_van_b0": (7984374, 25699221504, 0, 25934102528),
    "semantic_fpn_van_b1": (17615446, 34479276032, 0, 34723233792),
    "semantic_fpn_van_b2": (30332118, 47527493632, 0, 47793078272),
    "semantic_fpn_van_b3": (48519254, 68072898560, 0, 68368302080),
    "semantic_fpn_van_b4": (64036822, 84887732224, 0, None),
}
# mmcv's counter on the tree of 2022-07 at 2048 x 512.
MMCV = {
    "upernet_van_b0": 857731261440,
    "upernet_van_b2": 947574694912,
    "upernet_van_b3": 1030123840512,
    "upernet_van_b4": 1097667863552,
    "upernet_van_b5": 1205027234816,
    "upernet_van_b6": 1657800123392,
}


def test_every_published_row_is_checked():
    assert set(PUBLISHED_SEGMENTERS) <= set(EXACT) <= set(SEGMENTERS)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*SEGMENTERS} - {*EXACT}))
def test_counts_in_the_file(name):
    assert counted_segmenter(name) == describe_segmenter(SEGMENTERS[name]), "run van.tools.complexity.write_counted()"


def test_every_segmenter_is_in_the_file_at_its_usual_size():
    assert all(counted_segmenter(name) and counted_segmenter(name, [512]) for name in SEGMENTERS)
    assert counted_segmenter("light_ham_van_b0", (512, 256)) is None
    assert counted_segmenter("van_b0") is None


def large_ones_slow(names):
    """Building a network takes up to seconds: B0 to B2 and B6 in the default run."""
    return [pytest.param(n, marks=pytest.mark.slow) if n[-2:] in ("b3", "b4", "b5") else n for n in names]


@pytest.mark.parametrize("name", large_ones_slow(EXACT))
def test_counts_are_exact(name):
    parameters, macs, matmul, torchprofile = EXACT[name]
    cost = describe_segmenter(SEGMENTERS[name])
    assert (cost.parameters, cost.macs, cost.matmul_macs) == (parameters, macs, matmul)
    assert sum(cost.by_part.values()) == parameters
    assert torchprofile in (None, cost.torchprofile)
    assert counted_segmenter(name) == cost, "run van.tools.complexity.write_counted()"
    for row in PUBLISHED_SEGMENTERS.get(name, ()):
        millions = f"{cost.parameters / 1e6:.{len(row.parameters_m.partition('.')[2])}f}"
        wrong_row = name == "upernet_van_b5"  # published 117 M; its configuration has 121.9 M
        assert (millions == row.parameters_m) != wrong_row
        if row.convention == "torchprofile":
            assert f"{cost.torchprofile / 1e9:.1f}" == row.giga


@pytest.mark.parametrize("name", large_ones_slow(MMCV))
def test_counts_of_2022_07_are_exact(name):
    row = PUBLISHED_SEGMENTERS[name][-1]
    cost = describe_segmenter(SEGMENTERS[name], size=row.size)
    assert row.convention == "mmcv"
    assert cost.mmcv == MMCV[name]
    if row.giga:
        assert (f"{cost.mmcv / 1e9:.0f}" == row.giga) != (name == "upernet_van_b5")  # published 1208


def test_parts_and_sizes():
    small, large = (describe_segmenter(SEGMENTERS["upernet_van_b0"], size=size) for size in ((64, 64), (128, 64)))
    assert small.by_part == {"backbone": 3848800, "head": 27876502, "auxiliary": 407702}
    assert small.parameters == large.parameters
    assert 1.9 < large.macs / small.macs < 2.1
    assert describe_segmenter(SEGMENTERS["semantic_fpn_van_b0"], size=64).by_part["neck"] == 2492416


class Attention(nn.Module):
    """No task's network: a convolution with bias, a product of matrices, a norm, pooling, a nearest resize."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, groups=1)
        self.norm = nn.LayerNorm(4)

    def forward(self, x):
        x = F.interpolate(F.relu(self.conv(x)), scale_factor=2)
        tokens = self.norm(x.flatten(2).transpose(1, 2))  # (1, 64, 4)
        return (tokens @ tokens.transpose(1, 2)).mean(2) * 2


def test_operations_of_any_network():
    operations = count_operations(Attention().to("meta"), torch.empty(1, 3, 4, 4, device="meta"))
    macs, bias, matmul = 4 * 27 * 16, 4 * 16, 64 * 64 * 4
    assert dict(operations.total) == {
        **{"macs": macs, "bias": bias, "relu": 4 * 16, "layer_norm": 64 * 4, "matmul": matmul},
        **{"pooled": 64, "pool_input": 64 * 64, "multiply": 64},
    }
    assert operations.by_module["conv"] == {"macs": macs, "bias": bias}
    assert operations.by_module["norm"] == {"layer_norm": 64 * 4}
    assert operations.in_convention({"macs": 2, "layer_norm": 3}) == 2 * macs + 3 * 64 * 4
