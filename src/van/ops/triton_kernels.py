"""Depthwise convolutions of NHWC maps in Triton, and their gradients; gpu.py launches them, nothing else imports this.

Shapes: N batch, H height, W width, C channels, K kernel side, D dilation, BEFORE rows and columns of padding above and
left. Maps are dense (N, H, W, C), weights (K * K, C); sums are float32 whatever the maps are.
Addresses inside an image row fit 32 bits; rows are addressed with 64.
"""

# mypy: ignore-errors
# ruff: noqa: N803, RUF005 (sizes and constants in capitals; the compiler joins tuples, it does not unpack them)
from __future__ import annotations

import triton
import triton.language as tl

# What happens to a sum before it is stored.
NOTHING, GELU, TIMES_GELU_SLOPE, SLOPE_AND_GELU = 0, 1, 2, 3


@triton.jit
def convolve(
    x,
    weight,
    bias,
    grad,
    y,
    z,
    H,
    W,
    C,
    row_blocks,
    column_blocks,
    channel_blocks,
    K: tl.constexpr,
    D: tl.constexpr,
    BEFORE: tl.constexpr,
    FLIP: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    EPILOGUE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """A program makes ROWS output rows that lie D apart, COLUMNS wide: a value read serves all of them.

    Rows outside the map are skipped, not multiplied by zero. FLIP: weights in reverse, for the input's gradient.
    EPILOGUE 1: GELU. EPILOGUE 2: grad times GELU's slope at the sum. EPILOGUE 3: that, and GELU to z.
    """
    program = tl.program_id(0)
    c = (program % channel_blocks) * CHANNELS + tl.arange(0, CHANNELS)
    program = program // channel_blocks
    w = (program % column_blocks) * COLUMNS + tl.arange(0, COLUMNS)
    program = program // column_blocks
    block = program % row_blocks
    top = (block // D) * (ROWS * D) + block % D
    image = (program // row_blocks).to(tl.int64) * H
    inside_c = c < C

    sums = (tl.zeros((COLUMNS, CHANNELS), tl.float32),) * ROWS
    for i in tl.static_range(ROWS + K - 1):
        h = top + i * D - BEFORE
        if (h >= 0) & (h < H):
            row = x + (image + h) * (W * C)
            for j in tl.static_range(K):
                v = w + (j * D - BEFORE)
                inside = ((v >= 0) & (v < W))[:, None] & inside_c[None, :]
                value = tl.load(row + (v[:, None] * C + c[None, :]), mask=inside, other=0.0).to(tl.float32)
                for r in tl.static_range(ROWS):
                    if i >= r and i - r < K:
                        tap = (i - r) * K + j
                        if FLIP:
                            tap = K * K - 1 - tap
                        factor = tl.load(weight + tap * C + c, mask=inside_c, other=0.0).to(tl.float32)
                        sums = sums[:r] + (sums[r] + value * factor[None, :],) + sums[r + 1 :]

    for r in tl.static_range(ROWS):
        h = top + r * D
        inside = (w < tl.where(h < H, W, 0))[:, None] & inside_c[None, :]
        at = (image + h) * (W * C) + (w[:, None] * C + c[None, :])
        total = sums[r]
        if HAS_BIAS:
            total += tl.load(bias + c, mask=inside_c, other=0.0).to(tl.float32)[None, :]
        if EPILOGUE != 0:
            below = 0.5 + 0.5 * tl.math.erf(total * 0.7071067811865476)  # the normal distribution's
            if EPILOGUE == 1:
                total = total * below
            else:
                if EPILOGUE == 3:
                    tl.store(z + at, (total * below).to(z.dtype.element_ty), mask=inside)
                slope = below + total * 0.3989422804014327 * tl.exp(-0.5 * total * total)
                total = slope * tl.load(grad + at, mask=inside, other=0.0).to(tl.float32)
        tl.store(y + at, total.to(y.dtype.element_ty), mask=inside)


@triton.jit
def weight_gradient(
    x,
    grad,
    taps,
    biases,
    H,
    W,
    C,
    all_rows,
    channel_blocks,
    K: tl.constexpr,
    D: tl.constexpr,
    BEFORE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """A program sums one kernel row's K taps over ROWS rows of the batch; (chunks, K * K, C) and (chunks, C) float32.

    The chunks are added afterwards, in their order: no atomics, so the same sums every time.
    """
    program = tl.program_id(0)
    i = program % K
    program = program // K
    c = (program % channel_blocks) * CHANNELS + tl.arange(0, CHANNELS)
    chunk = program // channel_blocks
    inside_c = c < C

    sums = (tl.zeros((COLUMNS, CHANNELS), tl.float32),) * K
    bias = tl.zeros((COLUMNS, CHANNELS), tl.float32)
    for k in range(ROWS):
        n = chunk * ROWS + k
        h = n % H + i * D - BEFORE
        inside_h = (h >= 0) & (h < H)
        if (n < all_rows) & (inside_h | (i == 0)):  # the first kernel row's programs sum the bias too
            row = (n + (i * D - BEFORE)).to(tl.int64) * (W * C)
            width = tl.where(inside_h, W, 0)
            first = 0
            while first < W:  # no range: Triton 3.6's interpreter cannot index with NumPy 2.4
                w = first + tl.arange(0, COLUMNS)
                inside = (w < W)[:, None] & inside_c[None, :]
                at = n.to(tl.int64) * (W * C) + (w[:, None] * C + c[None, :])
                slope = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32)
                bias += slope
                for j in tl.static_range(K):
                    v = w + (j * D - BEFORE)
                    inside = ((v >= 0) & (v < width))[:, None] & inside_c[None, :]
                    value = tl.load(x + row + (v[:, None] * C + c[None, :]), mask=inside, other=0.0).to(tl.float32)
                    sums = sums[:j] + (sums[j] + value * slope,) + sums[j + 1 :]
                first += COLUMNS

    chunk = chunk.to(tl.int64)
    for j in tl.static_range(K):
        tl.store(taps + (chunk * K * K + i * K + j) * C + c, tl.sum(sums[j], 0), mask=inside_c)
    if i == 0:
        tl.store(biases + chunk * C + c, tl.sum(bias, 0), mask=inside_c)
