"""The C kernel as a library: compiled when it is first needed, kept in the user's cache, loaded with ctypes.

| variable | meaning |
|---|---|
| VAN_OPS=plain | never use the kernel, nor those of a GPU |
| VAN_OPS=AMX, AVX512, AVX2, baseline | the kernel with these instructions at most |
| VAN_CACHE | the folder for what is built (default: XDG_CACHE_HOME or ~/.cache, there `van`) |
| CC | the C compiler (default: cc, gcc or clang) |
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import ConfigError
from .building import SOURCES, CompilerHangsError, NoKernelError, open_kernel

COMMON_FLAGS = ("-std=gnu11", "-O3", "-fPIC", "-shared", "-fvisibility=hidden", "-fno-math-errno", "-Wno-psabi")
AVX512_FLAGS = ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mprefer-vector-width=512")
# Instructions -> flags, the fastest first; other processors get the compiler's default.
INSTRUCTION_FLAGS = {
    "AMX": (*AVX512_FLAGS, "-mavx512bf16", "-mamx-tile", "-mamx-bf16"),
    "AVX512": AVX512_FLAGS,
    "AVX2": ("-mavx2", "-mfma"),
    "baseline": (),
}
# What the processor must have for AMX beyond AVX512, in the system's words, and for products of bfloat16.
AMX_FEATURES = {"avx512_bf16", "amx_tile", "amx_bf16"}
BFLOAT16_FEATURES = {"avx512_bf16"}
# A build for other numbers than float32.
TYPE_FLAGS = {
    torch.float32: (),
    torch.float64: ("-DVAN_DOUBLE",),
    torch.bfloat16: ("-DVAN_BFLOAT16", "-mavx512bf16"),
}


@dataclass(frozen=True, kw_only=True)
class Library:
    """The loaded kernel, or why there is none.

    handle: a ctypes.CDLL, None where the plain path is used. instructions: a key of INSTRUCTION_FLAGS.
    reason: in words.
    """

    handle: Any
    instructions: str
    reason: str


@functools.cache
def library(dtype: torch.dtype = torch.float32) -> Library:
    """The kernel for this machine, for products of this type. Never raises: no kernel is a `reason`.

    float64 exists to check gradients with. bfloat16 multiplies that, and is float32 otherwise; where the processor
    has no instructions for it, and for float16, it is the kernel of float32: half precision is widened.
    """
    if dtype == torch.float16 or (dtype == torch.bfloat16 and not multiplies_bfloat16()):
        return library()
    failed, reason = "", ""
    for instructions in _candidates(dtype):
        try:
            handle, unusual = _built(instructions, dtype)
        except NoKernelError as error:
            reason = str(error)
            failed = f"; {instructions}: {reason}"
            if isinstance(error, CompilerHangsError):
                break
            continue
        threads = "the threads of PyTorch" if _use_host_threads(handle) else "one thread: PyTorch's pool was not found"
        reason = f"{instructions} kernel, {threads}{failed}" + (f"; {unusual}" if unusual else "")
        return Library(handle=handle, instructions=instructions, reason=reason)
    return Library(handle=None, instructions=instructions, reason=reason)


def multiplies_bfloat16() -> bool:
    """Whether the kernel may use instructions for bfloat16 here: of AVX-512 or AMX."""
    return _candidates(torch.bfloat16)[0] in ("AMX", "AVX512") and _features() >= BFLOAT16_FEATURES


def _candidates(dtype: torch.dtype) -> list[str]:
    """Instructions to try, the fastest first."""
    capability, wish = torch.backends.cpu.get_cpu_capability(), _wish()
    best = capability if capability in INSTRUCTION_FLAGS else "baseline"
    order = list(INSTRUCTION_FLAGS)
    if wish in order:
        best = order[max(order.index(best), order.index(wish))]
    tiles = best == "AVX512" and wish in ("auto", "AMX") and dtype != torch.float64 and _features() >= AMX_FEATURES
    return ["AMX", best] if tiles else [best]


def _features() -> set[str]:
    """The processor's features as Linux names them; elsewhere none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def _built(instructions: str, dtype: torch.dtype) -> tuple[ctypes.CDLL, str]:
    """The loaded library, and in words what was unusual about building it."""
    if _wish() == "plain":
        raise NoKernelError("VAN_OPS=plain")
    flags = (*COMMON_FLAGS, *INSTRUCTION_FLAGS[instructions], *TYPE_FLAGS[dtype])
    content = b"".join(path.read_bytes() for path in sorted(SOURCES.iterdir()))
    recipe = repr((flags, platform.machine(), platform.system(), os.environ.get("CC"))).encode()
    name = f"kernel-{instructions.lower()}-{hashlib.sha256(content + recipe).hexdigest()[:16]}"
    return open_kernel(name, flags, _load)


def _wish() -> str:
    wish = os.environ.get("VAN_OPS", "auto")
    if wish not in ("auto", "plain", *INSTRUCTION_FLAGS):
        raise ConfigError(
            f"VAN_OPS is {wish!r}; expected plain, which never uses the kernel, auto, or the most of its instructions:"
            f" {', '.join(INSTRUCTION_FLAGS)}"
        )
    return wish


def _load(path: Path) -> ctypes.CDLL:
    """The library with its functions' types; raises OSError where the system does not load it."""
    try:
        handle = ctypes.CDLL(str(path))
    except OSError as error:
        raise OSError(f"the kernel does not load: {error}; set VAN_CACHE to where programs may run") from None
    try:
        _set_types(handle)
    except AttributeError as error:
        raise NoKernelError(f"the compiler made another library ({error}); set CC to a C compiler") from None
    if handle.van_ready():
        raise NoKernelError("the system does not let this process use these instructions")
    return handle


def _set_types(handle: ctypes.CDLL) -> None:
    """Of every function's arguments and results; raises AttributeError where one is missing."""
    pointer, number = ctypes.c_void_p, ctypes.c_int
    handle.van_ready.argtypes = []
    handle.van_use_threads_of.argtypes = [pointer]
    handle.van_lanes.restype = handle.van_panel.restype = ctypes.c_long
    handle.van_packed_size.argtypes, handle.van_packed_size.restype = [ctypes.c_long] * 2, ctypes.c_long
    handle.van_pack.argtypes, handle.van_pack.restype = [pointer, *[ctypes.c_long] * 4, pointer], None
    handle.van_depthwise.argtypes = [pointer] * 5 + [number]
    handle.van_depthwise_backward.argtypes = [pointer] * 6 + [ctypes.c_long, number]
    handle.van_hidden.argtypes = [pointer] * 5 + [number]
    handle.van_hidden_backward.argtypes = [pointer] * 7 + [ctypes.c_long, number]
    handle.van_block_groups.argtypes, handle.van_block_groups.restype = [ctypes.c_long] * 2, ctypes.c_long
    handle.van_patch.argtypes = [pointer] * 6 + [number] * 2
    handle.van_norm.argtypes = [pointer, ctypes.c_long, ctypes.c_long, pointer, ctypes.c_double, number]
    handle.van_factorise_memory.argtypes, handle.van_factorise_memory.restype = [pointer], ctypes.c_long
    handle.van_factorise.argtypes = [pointer, pointer, ctypes.c_long, ctypes.c_double, *[pointer] * 3, number]
    handle.van_feed_panels.argtypes, handle.van_feed_panels.restype = [pointer, number], ctypes.c_long
    handle.van_feed.argtypes = [pointer] * 8 + [number] * 2
    handle.van_feed_backward.argtypes = [pointer] * 8 + [number] * 2
    handle.van_attention_panels.argtypes, handle.van_attention_panels.restype = [ctypes.c_long], ctypes.c_long
    handle.van_attention.argtypes = [pointer] * 8 + [number] * 2
    handle.van_attention_backward.argtypes = [pointer] * 8 + [ctypes.c_long] + [number] * 2
    handle.van_blocks.argtypes = [pointer] * 4 + [ctypes.c_long] * 2 + [pointer] * 2 + [number] * 2


def _use_host_threads(handle: ctypes.CDLL) -> bool:
    """Let the kernel run on PyTorch's own OpenMP threads: a second pool would fight the first for the cores."""
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib"):
        try:
            parallel = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / name)).GOMP_parallel
        except (OSError, AttributeError):
            continue
        handle.van_use_threads_of(ctypes.cast(parallel, ctypes.c_void_p))
        return True
    return False
