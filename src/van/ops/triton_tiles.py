"""In which blocks the Triton kernels work: a static table, and what `van tune` measured on this machine.

A tuned file belongs to one GPU model, one version of PyTorch and Triton, and one text of the kernels.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ConfigError
from ..files import atomic_output, cache_folder, why_not_private

KERNELS = Path(__file__).parent / "triton_kernels.py"


@dataclass(frozen=True)
class Blocks:
    """The share of one program.

    rows: output rows (map), rows of the batch to sum over (weight). columns, channels: powers of two. warps: of 32
    threads; with 16 bytes of channels per thread.
    """

    rows: int
    columns: int
    channels: int
    warps: int


# use ("map": forward and input gradient; "weight": its gradient), kernel side, dilation -> width of the map -> blocks,
# for types of two bytes and 64 channels. Widths are those of the four stages at 224 x 224; others take the next larger.
# Chosen by the number of registers and instructions per output, not by measurements: `van tune` makes those.
_MAP = {7: Blocks(1, 8, 64, 1), 14: Blocks(2, 16, 64, 1), 28: Blocks(2, 32, 64, 2), 56: Blocks(2, 64, 64, 4)}
# rows lie 3 apart, of which two leave a small map; four warps of 64 sums each would spill registers
_FAR = _MAP | {14: Blocks(1, 16, 64, 1), 28: Blocks(2, 32, 64, 4), 56: Blocks(2, 64, 64, 8)}
_SUM = {7: Blocks(16, 8, 64, 1), 14: Blocks(32, 16, 64, 2), 28: Blocks(32, 32, 64, 4), 56: Blocks(64, 32, 64, 4)}
_FAR_SUM = {7: Blocks(16, 8, 64, 1), 14: Blocks(32, 16, 64, 4), 28: Blocks(32, 32, 64, 8), 56: Blocks(64, 32, 64, 8)}
TABLE: dict[tuple[str, int, int], dict[int, Blocks]] = {
    ("map", 3, 1): _MAP,
    ("map", 5, 1): _MAP,
    ("map", 7, 3): _FAR,
    ("weight", 3, 1): _SUM,
    ("weight", 5, 1): _SUM,
    ("weight", 7, 3): _FAR_SUM,
}


def blocks_for(use: str, side: int, dilation: int, x: Tensor) -> Blocks:
    """The blocks for a map (N, C, H, W): tuned on this machine, else the table's."""
    _, channels, _, width = x.shape
    if x.is_cuda:
        found = _tuned_on(x.device.index).get(key(use, side, dilation, x.dtype, channels, width))
        if found is not None:
            return found
    return from_table(use, side, dilation, x.dtype, channels, width)


@functools.cache
def from_table(use: str, side: int, dilation: int, dtype: torch.dtype, channels: int, width: int) -> Blocks:
    """The table's blocks; kernels that are not in it take the row of the next larger one that is."""
    rows = {name[1]: widths for name, widths in TABLE.items() if name[0] == use}
    widths = rows[min((known for known in rows if known >= side), default=max(rows))]
    blocks = widths[min((known for known in widths if known >= width), default=max(widths))]
    most = blocks.channels * 2 // dtype.itemsize
    fitting = min(most, max(16, 1 << (channels - 1).bit_length()))
    return Blocks(blocks.rows, blocks.columns, fitting, max(1, blocks.warps * fitting // most))


def key(use: str, side: int, dilation: int, dtype: torch.dtype, channels: int, width: int) -> str:
    """The name of a case in a tuned file."""
    return f"{use}/{side}x{side}/dilation{dilation}/{str(dtype).removeprefix('torch.')}/c{channels}/w{width}"


# --- the tuned file


def tuned_file(index: int | None = None) -> Path:
    """Where the blocks that were measured on a CUDA device lie."""
    import triton

    device = re.sub(r"\W+", "-", torch.cuda.get_device_name(index)).strip("-").lower()
    versions = f"{torch.__version__} {triton.__version__}".encode()
    return cache_folder() / f"blocks-{device}-{hashlib.sha256(KERNELS.read_bytes() + versions).hexdigest()[:16]}.json"


def read_tuned(path: Path) -> dict[str, Blocks]:
    """What a tuned file holds; nothing where there is none, others could have written it, or it is damaged."""
    try:
        if why_not_private(path.parent) or why_not_private(path):
            return {}
        return {name: Blocks(**blocks) for name, blocks in json.loads(path.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def write_tuned(path: Path, found: dict[str, Blocks]) -> None:
    """Add measured blocks to a file, which is replaced whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if reason := why_not_private(path.parent):  # it would not be read
        raise ConfigError(f"{path.parent} {reason}; chmod go-w it, or set VAN_CACHE to a folder of your own")
    merged: dict[str, Any] = {name: asdict(blocks) for name, blocks in (read_tuned(path) | found).items()}
    with atomic_output(path, mode=0o600) as temporary:
        temporary.write_text(json.dumps(merged, indent=1))
    _tuned_on.cache_clear()


@functools.cache
def _tuned_on(index: int | None) -> dict[str, Blocks]:
    return read_tuned(tuned_file(index))
