"""One row per module of the network, one column per format: the whole translation of keys, both ways.

{s} is the stage and {j} the block counted from 0, {i} the stage counted from 1. What follows a module's name (weight,
bias, running_mean, …) is the same everywhere; layer scales are bare tensors, so their rows are complete keys.

Sources: van.py of the official repositories; mmpretrain's van.py; transformers' modeling_van.py ("pre_normomalization"
is theirs).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

Row = tuple[str, str, str, str]

COLUMNS = ("van", "official", "mmpretrain", "transformers")

# The prefixes of the rows of a stage, of a block, and of the head.
STAGE: Row = ("backbone.stages.{s}.", "", "backbone.", "van.encoder.stages.{s}.")
BLOCK: Row = ("backbone.stages.{s}.blocks.{j}.", "block{i}.{j}.", "backbone.blocks{i}.{j}.", STAGE[3] + "layers.{j}.")

STAGE_ROWS: tuple[Row, ...] = (
    ("patch_embed.conv", "patch_embed{i}.proj", "patch_embed{i}.projection", "embeddings.convolution"),
    ("patch_embed.norm", "patch_embed{i}.norm", "patch_embed{i}.norm", "embeddings.normalization"),
    ("norm", "norm{i}", "norm{i}", "normalization"),
)
_GATE, _LKA = "attn.spatial_gating_unit.", "attention.attention_layer.attention."
BLOCK_ROWS: tuple[Row, ...] = (
    ("norm1", "norm1", "norm1", "pre_normomalization"),
    ("attention.proj_in", "attn.proj_1", "attn.proj_1", "attention.pre_projection.conv"),
    ("attention.spatial.near", f"{_GATE}conv0", f"{_GATE}DW_conv", f"{_LKA}depth_wise"),
    ("attention.spatial.far", f"{_GATE}conv_spatial", f"{_GATE}DW_D_conv", f"{_LKA}depth_wise_dilated"),
    ("attention.spatial.mix", f"{_GATE}conv1", f"{_GATE}conv1", f"{_LKA}point_wise"),
    ("attention.proj_out", "attn.proj_2", "attn.proj_2", "attention.post_projection"),
    ("norm2", "norm2", "norm2", "post_normalization"),
    ("feed_forward.expand", "mlp.fc1", "mlp.fc1", "mlp.in_dense"),
    ("feed_forward.depthwise", "mlp.dwconv.dwconv", "mlp.dwconv", "mlp.depth_wise"),
    ("feed_forward.project", "mlp.fc2", "mlp.fc2", "mlp.out_dense"),
)
SCALE_ROWS: tuple[Row, ...] = (
    ("scale1", "layer_scale_1", "layer_scale_1", "attention_scaling.weight"),
    ("scale2", "layer_scale_2", "layer_scale_2", "mlp_scaling.weight"),
)
HEAD: Row = ("head", "head", "head.fc", "classifier")

_LEAF = r"(?P<leaf>\.(?:weight|bias|running_mean|running_var|num_batches_tracked))"
_NUMBERS = {"s": r"(?P<s>\d+)", "i": r"(?P<i>[1-9]\d*)", "j": r"(?P<j>\d+)"}


@dataclass(frozen=True)
class KeyTable:
    """Both directions between our keys and those of one format.

    rows: (our template, their template, whether a leaf follows).
    """

    rows: tuple[tuple[str, str, bool], ...]

    def canonical(self, key: str) -> str | None:
        """Our key of a file's key; None when the format has no such key."""
        return self._translate(key, self._reading)

    def foreign(self, key: str) -> str:
        """The file's key of one of ours; keys that the format has no name for stay as they are."""
        return self._translate(key, self._writing) or key

    @cached_property
    def _reading(self) -> list[tuple[re.Pattern[str], str]]:
        return [(_pattern(theirs, leaf), ours) for ours, theirs, leaf in self.rows]

    @cached_property
    def _writing(self) -> list[tuple[re.Pattern[str], str]]:
        return [(_pattern(ours, leaf), theirs) for ours, theirs, leaf in self.rows]

    @staticmethod
    def _translate(key: str, rules: list[tuple[re.Pattern[str], str]]) -> str | None:
        for pattern, template in rules:
            if match := pattern.fullmatch(key):
                part = match.groupdict()
                stage = int(part["s"]) if part.get("s") else int(part.get("i") or 1) - 1
                return template.format(s=stage, i=stage + 1, j=part.get("j")) + (part.get("leaf") or "")
        return None


def _pattern(template: str, leaf: bool) -> re.Pattern[str]:
    pieces = re.split(r"\{([sij])\}", template)
    pattern = "".join(_NUMBERS[piece] if k % 2 else re.escape(piece) for k, piece in enumerate(pieces))
    return re.compile(pattern + (_LEAF if leaf else ""))


def _column(name: str, prefix: str = "", **renamed: str) -> KeyTable:
    """The table of a column; `prefix` goes before every key of the backbone."""
    c = COLUMNS.index(name)

    def rows(before: Row, table: tuple[Row, ...], leaf: bool) -> list[tuple[str, str, bool]]:
        return [(before[0] + row[0], prefix + before[c] + renamed.get(row[0], row[c]), leaf) for row in table]

    return KeyTable(
        (
            *rows(STAGE, STAGE_ROWS, True),
            *rows(BLOCK, BLOCK_ROWS, True),
            *rows(BLOCK, SCALE_ROWS, False),
            (HEAD[0], HEAD[c], True),
        )
    )


VAN = _column("van")
OFFICIAL = _column("official")
MMPRETRAIN = _column("mmpretrain")
TRANSFORMERS = _column("transformers")
# Segmenters' backbones; mmsegmentation 1.x lost the inner level of the depthwise convolution.
MMSEG = _column("official", prefix="backbone.")
MMSEG_1 = _column("official", prefix="backbone.", **{"feed_forward.depthwise": "mlp.dwconv"})
# The official names with that one level, as several ports have them.
ONE_LEVEL = _column("official", **{"feed_forward.depthwise": "mlp.dwconv"})
