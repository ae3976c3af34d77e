"""What a GPU can do and how long something takes on it: shared by gpu_ops.py and gpu_model.py.

Without a GPU everything works on the CPU, with TRITON_INTERPRET=1 set before this is imported, so that the scripts can
be tried; such figures mean nothing and are not kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
import triton
import triton.language as tl

# Written between two runs, so that none finds its maps in the cache that the last one left.
FLUSH_BYTES = 256 << 20
COPY_BYTES = 1 << 30
GEMM_SIDE = 8192
# A program of the FMA kernel: so many chains of so many steps.
CHAINS, STEPS = 4096, 4096


def device() -> torch.device:
    """The GPU, else the CPU."""
    return torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")


def describe() -> dict[str, str]:
    """The machine and the versions of a figure."""
    import importlib.metadata

    names = ("torch", "triton", "timm")
    versions = {name: importlib.metadata.version(name) for name in names}
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        versions |= {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}
    return {"machine": torch.cuda.get_device_name() if on_gpu else "no GPU: a trial", **versions}


def milliseconds(function: Callable[[], object], *, runs: int, flush: bool = True) -> float:
    """The median time of a run, after three to warm up; the cache is flushed before each where asked."""
    if not torch.cuda.is_available():
        return median(_cpu_ms(function) for _ in range(runs))
    for _ in range(3):
        function()
    rubbish = torch.empty(FLUSH_BYTES if flush else 0, dtype=torch.int8, device="cuda")
    pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(runs)]
    for start, end in pairs:
        rubbish.zero_()
        start.record()
        function()
        end.record()
    torch.cuda.synchronize()
    return median(start.elapsed_time(end) for start, end in pairs)


def _cpu_ms(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start)


def floors(*, quick: bool) -> dict[str, float]:
    """What this machine reaches: bytes/s of a copy, float32 FMA/s, bfloat16 FMA/s of a matrix product."""
    where, shrink = device(), 1024 if quick else 1
    source = torch.zeros(COPY_BYTES // shrink, dtype=torch.int8, device=where)
    target = torch.empty_like(source)
    copy_ms = milliseconds(lambda: target.copy_(source), runs=10, flush=False)
    side = GEMM_SIDE // (64 if quick else 1)
    a, b = (torch.randn((side, side), device=where, dtype=torch.bfloat16) for _ in range(2))
    gemm_ms = milliseconds(lambda: a @ b, runs=10, flush=False)
    programs, steps = (1, 4) if quick else (132 * 16, STEPS)
    fma_ms = milliseconds(_fma(programs, steps), runs=3 if quick else 10, flush=False)
    return {
        "copy": 2e3 * source.numel() / copy_ms,
        "gemm": 1e3 * side**3 / gemm_ms,
        "fma": 1e3 * programs * CHAINS * steps / fma_ms,
    }


def _fma(programs: int, steps: int) -> Callable[[], object]:
    y = torch.empty(programs * CHAINS, device=device())
    return lambda: chains[(programs,)](y, 0.5, steps, COUNT=CHAINS, num_warps=8, enable_fp_fusion=True)


@triton.jit
def chains(y, factor, steps, COUNT: tl.constexpr):  # noqa: N803
    """Nothing but fused multiply-adds in registers."""
    values = tl.arange(0, COUNT).to(tl.float32)
    for _ in range(steps):
        values = values * factor + 1.0
    tl.store(y + tl.program_id(0) * COUNT + tl.arange(0, COUNT), values)


def kernel_names(function: Callable[[], object], *, most: int = 3) -> list[str]:
    """The kernels (on the CPU: operators) that take most of the time, longest first."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    function()
    with torch.profiler.profile(activities=activities) as seen:
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    spent: dict[str, float] = {}
    for event in seen.events():
        on_gpu = event.device_type == torch.autograd.DeviceType.CUDA
        if on_gpu or not torch.cuda.is_available():
            spent[event.name] = spent.get(event.name, 0.0) + self_us(event, on_gpu)
    return sorted(spent, key=lambda name: -spent[name])[:most]


def self_us(event: Any, on_gpu: bool) -> float:
    """Microseconds of a profiler's event without those of the events inside it."""
    return float(event.self_device_time_total if on_gpu else event.self_cpu_time_total)
