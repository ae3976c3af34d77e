"""The keys of segmentation heads, ours and mmsegmentation's: one row per module of a method, both ways.

As in `keys`: {s} counts from 0, and what follows a module's name is the same everywhere. mmsegmentation calls a
GroupNorm `gn` and a BatchNorm, synchronised or not, `bn`; here both are `norm`.
Sources: ham_head.py, uper_head.py, fpn_head.py, fcn_head.py and necks/fpn.py of the VAN segmentation code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from .keys import MMSEG, MMSEG_1, VAN, KeyTable

Pair = tuple[str, str]

# The one buffer of a Hamburger; mmsegmentation has none and draws at every forward.
BASES = "head.hamburger.ham.bases"

_CLASSIFY: Pair = ("head.classify.conv", "decode_head.conv_seg")
# Convolution without a norm, and convolution with one: (ours, theirs) before `conv` and `norm`.
PLAIN: dict[str, tuple[Pair, ...]] = {
    "light_ham": (("head.hamburger.lower", "decode_head.hamburger.ham_in.conv"), _CLASSIFY),
    "hamnet": (("head.hamburger.lower", "decode_head.ham_in.conv"), _CLASSIFY),
    "upernet": (_CLASSIFY,),
    "semantic_fpn": (
        ("neck.laterals.{s}", "neck.lateral_convs.{s}.conv"),
        ("neck.outputs.{s}", "neck.fpn_convs.{s}.conv"),
        _CLASSIFY,
    ),
}
_SQUEEZE: Pair = ("head.squeeze", "decode_head.squeeze")
_ALIGN: Pair = ("head.align", "decode_head.align")
NORMED: dict[str, tuple[Pair, ...]] = {
    "light_ham": (_SQUEEZE, _ALIGN),
    "hamnet": (_SQUEEZE, _ALIGN, ("head.join", "decode_head.conv_cat")),
    "upernet": (
        ("head.pooling.convs.{s}", "decode_head.psp_modules.{s}.1"),
        ("head.pooling.join", "decode_head.bottleneck"),
        ("head.laterals.{s}", "decode_head.lateral_convs.{s}"),
        ("head.outputs.{s}", "decode_head.fpn_convs.{s}"),
        ("head.join", "decode_head.fpn_bottleneck"),
    ),
    # after every convolution of theirs stands the doubling of the map, so they count in steps of two
    "semantic_fpn": tuple(
        (f"head.branches.{level}.convs.{k}", f"decode_head.scale_heads.{level}.{2 * k}")
        for level in range(4)
        for k in range(max(level, 1))
    ),
}
# The Hamburger's second convolution shares a module with its norm there, not here.
_HAM_OUT = {"light_ham": "decode_head.hamburger.ham_out", "hamnet": "decode_head.ham_out"}
GROUP_NORMED = ("light_ham", "hamnet")
GROUP_NORMED_AUXILIARY = ("hamnet",)
_AUXILIARY: Pair = ("auxiliary.conv", "auxiliary_head.convs.0")
_AUXILIARY_CLASSIFY: Pair = ("auxiliary.classify.conv", "auxiliary_head.conv_seg")

# Method -> keys that only its head has in mmsegmentation, and in our spelling.
_THEIR_MARKS = {
    "hamnet": r"decode_head\.(conv_cat|ham_in|ham_out)\.",
    "light_ham": r"decode_head\.hamburger\.",
    "upernet": r"decode_head\.psp_modules\.",
    "semantic_fpn": r"decode_head\.scale_heads\.",
}
_OUR_MARKS = {
    "upernet": r"head\.pooling\.",
    "semantic_fpn": r"head\.branches\.",
    "hamnet": r"head\.join\.",  # UperNet has one too, and is asked before
    "light_ham": r"head\.hamburger\.",
}


def mmseg(method: str | None, *, version_1: bool) -> KeyTable:
    """The table of a segmenter in mmsegmentation's keys; None: of its backbone alone.

    version_1: the generation of mmsegmentation 1.x, whose depthwise convolution has no inner level.
    """
    backbone = MMSEG_1 if version_1 else MMSEG
    return backbone if method is None else KeyTable((*backbone.rows, *_rows(method)))


def _rows(method: str) -> list[tuple[str, str, bool]]:
    rows = [(ours, theirs, True) for ours, theirs in (*PLAIN[method], _AUXILIARY_CLASSIFY)]
    if method in _HAM_OUT:
        rows.append(("head.hamburger.upper", f"{_HAM_OUT[method]}.conv", True))
        rows.append(("head.hamburger.norm", f"{_HAM_OUT[method]}.gn", True))
    rows += _normed(NORMED[method], "gn" if method in GROUP_NORMED else "bn")
    return rows + _normed((_AUXILIARY,), "gn" if method in GROUP_NORMED_AUXILIARY else "bn")


def _normed(pairs: Iterable[Pair], norm: str) -> list[tuple[str, str, bool]]:
    rows = []
    for ours, theirs in pairs:
        rows += [(f"{ours}.conv", f"{theirs}.conv", True), (f"{ours}.norm", f"{theirs}.{norm}", True)]
    return rows


# Our own files: every key of every method, and the bases.
_OURS = dict.fromkeys(ours for method in PLAIN for ours, _, _ in _rows(method))
NATIVE = KeyTable((*VAN.rows, *((ours, ours, True) for ours in _OURS), (BASES, BASES, False)))


def method_of(keys: Iterable[str], *, ours: bool) -> str | None:
    """The method of a state under our keys or mmsegmentation's; None when it has no head of these four."""
    state = list(keys)

    def has(pattern: str) -> bool:
        return any(re.match(pattern, key) for key in state)

    marks = _OUR_MARKS if ours else _THEIR_MARKS
    return next((method for method, pattern in marks.items() if has(pattern)), None)
