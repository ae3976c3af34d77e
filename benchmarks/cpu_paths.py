"""What each path of the CPU kernel gains on each family of processors: the table of van/ops/measured.py.

    python benchmarks/cpu_paths.py [--ops FAMILY …] [--paths PATH …] [--rounds N] [--quick]

A family is the kernel with these instructions at most (`VAN_OPS`), so a processor measures its own and all older
ones. PyTorch itself stays what it is: beside a kernel with AVX2 it uses AVX-512 where it can. So every older family
is measured twice: against PyTorch as it is ("AVX2, PyTorch newer"), and against PyTorch kept to the family's
instructions as well as it lets itself (ATEN_CPU_CAPABILITY, ONEDNN_MAX_CPU_ISA, MKL_ENABLE_INSTRUCTIONS; MKL ignores
the last on AMD), as an older processor has it.

A case is a path and B0 or B1 at 224²: one image, or forward and backward pass of two; of eight, in the sliced
feed-forward and the fused attention, which compute gradients of weights themselves. Its time is the sum over the
network's blocks, interleaved with that of what it replaces, round by round: PyTorch's convolutions and products; for
folded blocks the modules with or without the other paths, whichever is faster. A feed-forward's and a fused
attention's is the whole network's, because they spare memory that others then find in the cache. Times are those of
the processor, one thread, so that a busy machine counts little. A path's figure is the smaller median of B0 and B1.

Writes docs/results.json; exit code 1 where the table takes a path that lost here or leaves one that won. --quick: one
round, nothing written or required.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

from interleaved import add_options, serve, worker

from van.ops.c_library import INSTRUCTION_FLAGS
from van.ops.measured import NEWER, RATIOS, REPLACED

MODELS = ("van_b0", "van_b1")
BURST_S = 0.03
Run = Callable[[], object]
# What a network of that family would have of PyTorch: variables of PyTorch, of oneDNN, of MKL.
KEPT_TO = {
    "AMX": {},
    "AVX512": {},
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "baseline": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    },
}
# What else is on while a path and what it replaces are measured: sets of paths, the fastest of which counts.
# A streamed feed-forward replaces the library's; the network around it has its other kernels.
OTHERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "streamed_feed_forward": (("depthwise_pair",),),
    "streamed_feed_forward_training": (("depthwise_pair_training",),),
    "sliced_feed_forward": (("depthwise_pair", "streamed_feed_forward"),),
    "sliced_feed_forward_training": (
        ("depthwise_pair_training", "streamed_feed_forward_training", "sliced_feed_forward"),
    ),
    "fused_attention_training": (("depthwise_pair_training", "streamed_feed_forward_training"),),
    "folded_blocks": ((), ("depthwise_pair", "depthwise_gelu"), ("depthwise_pair", "streamed_feed_forward")),
}
TRAINING = "_training"
WHOLE = ("streamed", "sliced", "fused")  # measured in the whole network
LARGER = ("sliced", "fused")  # trained with the batch of training_step.py: what they do to weights counts with any


def main() -> int:
    """Measure, print, record; returns the exit code."""
    options = _options()
    found: dict[str, dict[str, float]] = {}
    for instructions in options.ops:
        for restriction in [{}, KEPT_TO[instructions]] if KEPT_TO[instructions] else [{}]:
            family, ratios = _ratios(instructions, restriction, options)
            found[family] = ratios
            print(f'    "{family}": {{', *(f'        "{p}": {r:.2f},' for p, r in ratios.items()), "    },", sep="\n")
    if options.quick:
        return 0
    wrong = list(_wrong(found))
    print(*(wrong or ["the table of van/ops/measured.py chooses as these figures do"]), sep="\n")
    if options.record:
        _record(found)
    return 1 if wrong else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ops", nargs="+", choices=list(INSTRUCTION_FLAGS), default=["AVX512", "AVX2", "baseline"])
    parser.add_argument("--paths", nargs="+", choices=list(REPLACED), default=list(REPLACED))
    parser.add_argument("--rounds", type=int, default=5, help="rounds of measurements, at least 5 for a result")
    add_options(parser, threads=1, sides=("ours",))
    options = parser.parse_args()
    if options.worker:
        sys.exit(serve(_Worker(), options.threads))
    if options.quick:
        options.rounds = 1
    return options


def _ratios(
    instructions: str, restriction: dict[str, str], options: argparse.Namespace
) -> tuple[str, dict[str, float]]:
    """The family's name, and path -> ratio, from one process that is asked for all cases in turn."""
    cases = [(path, model) for path in options.paths for model in MODELS]
    times: dict[tuple[str, str], list[float]] = {case: [] for case in cases}
    with worker(__file__, options, "ours", environment={"VAN_OPS": instructions, **restriction}) as ask:
        family = ask(do="family")
        if family.removesuffix(NEWER) != instructions:
            raise SystemExit(f"this processor's kernel is {family}; leave {instructions} out of --ops")
        for _ in range(options.rounds):
            for path, model in cases:
                replaced, own = ask(do="time", path=path, model=model)
                times[path, model].append(replaced / own)
    for (path, model), ratios in times.items():
        spread = f"({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{family:<24}  {path:<30}  {model}  {median(ratios):5.2f}x  {spread}", flush=True)
    return family, {path: min(median(times[path, model]) for model in MODELS) for path in options.paths}


def _wrong(found: dict[str, dict[str, float]]) -> Iterator[str]:
    """Where the table chooses other than these figures."""
    for family, ratios in found.items():
        for path, ratio in ratios.items():
            listed = RATIOS.get(family, {}).get(path)
            if (listed is not None and listed >= 1) != (ratio >= 1):
                yield f"MISSED: {family}, {path}: {ratio:.2f} here, {listed} in van/ops/measured.py"


def _record(found: dict[str, dict[str, float]]) -> None:
    import ledger

    entries = []
    for family, ratios in found.items():
        for path, ratio in ratios.items():
            value = {
                "id": f"measured/paths/{family}/{path}",
                "value": round(ratio, 2),
                "unit": "×",
                "shown": f"{ratio:.2f}×",
            }
            where = {"table": "paths", "row": path, "column": family}
            what = f"{path} of the {family} kernel, one thread: speed over what it replaces, the worst case"
            entries.append({**value, **where, "what": what})
    ledger.record(entries, command="python benchmarks/cpu_paths.py")


# --- the process


class _Worker:
    """A family's kernel, and what it replaces."""

    def __init__(self) -> None:
        self.made: dict[tuple[str, str], list[tuple[int, list[Run]]]] = {}

    def family(self) -> str:
        from van.ops.selection import family

        return family()

    def time(self, path: str, model: str) -> tuple[float, float]:
        """Milliseconds of what the path replaces, and its own, of all blocks of the network."""
        if (path, model) not in self.made:
            self.made[path, model] = list(_stages(path, model))
        stages = self.made[path, model]
        spent = [[count * processor_ms(run) for run in ways] for count, ways in stages]
        *replaced, own = (sum(times) for times in zip(*spent, strict=True))
        return min(replaced), own


def processor_ms(run: Run) -> float:
    """Milliseconds that the processor spends on a call, the best of a burst; other rounds outvote a cold first one."""
    spent: list[float] = []
    while sum(spent) < BURST_S:
        start = time.process_time()
        run()
        spent.append(time.process_time() - start)
    return 1e3 * min(spent)


def _stages(path: str, model: str) -> Iterator[tuple[int, list[Run]]]:
    """Of each stage: how often the network has it, and a run for every way, the path's own last."""
    import torch

    import van

    ways = [*OTHERS.get(path, ((),)), (path,)]
    if path == "factorisation":
        yield 1, _factorisations(model, ways)
        return
    network = van.create_model(model, seed=0).eval()
    batch = (8 if path.startswith(LARGER) else 2) if path.endswith(TRAINING) else 1
    if path.startswith(WHOLE):
        ways[-1] += ways[0]
        yield 1, [_run(network, torch.randn(batch, 3, 224, 224), way, path) for way in ways]
        return
    for i, stage in enumerate(network.backbone.stages):
        patch = path == "folded_patch"
        if patch and i == 0:  # reads an image: the library's everywhere
            continue
        side, count = (112 >> i, 1) if patch else (56 >> i, len(stage.blocks))
        x = torch.randn(batch, _channels(path, stage), side, side).contiguous(memory_format=torch.channels_last)
        yield count, [_run(_module(path, stage, way), x, way, path) for way in ways]


def _factorisations(model: str, ways: list[tuple[str, ...]]) -> list[Run]:
    """Of a map of a picture of 512², half of it zeros, as ReLU leaves it."""
    import torch

    import van
    from van.nn.hamburger import EPSILON, factorisations

    (ham,) = factorisations(van.create_model(f"light_ham_{model}", seed=0))
    pixels = torch.randn(1, 64 * 64, ham.channels).relu()
    first = ham.bases[None].contiguous()
    return [
        _run(lambda x: van.ops.factorise(x, first, ham.eval_steps, EPSILON), pixels, way, path="factorisation")
        for way in ways
    ]


def _channels(path: str, stage: Any) -> int:
    """Of the map that the path reads."""
    block = stage.blocks[0]
    if path.startswith("depthwise_gelu"):
        return block.feed_forward.depthwise.in_channels
    return (stage.patch_embed.conv if path == "folded_patch" else block.attention.spatial.near).in_channels


def _module(path: str, stage: Any, way: tuple[str, ...]) -> Callable[[Any], Any]:
    """What computes it, from the map that it reads."""
    import torch

    from van import ops
    from van.nn.fold import FoldedStage
    from van.nn.fusable import depthwise_weights

    block = stage.blocks[0]
    near, far, depthwise = block.attention.spatial.near, block.attention.spatial.far, block.feed_forward.depthwise
    if path.startswith("folded"):
        with ops.taking(*way), torch.no_grad():
            folded = FoldedStage(stage)
        return folded.patch_embed if path == "folded_patch" else folded.blocks[0]
    return {
        "depthwise_conv2d": lambda x: ops.depthwise_conv2d(x, near.weight, near.bias),
        "depthwise_gelu": lambda x: ops.depthwise_gelu(x, depthwise_weights(depthwise)),
        "depthwise_pair": lambda x: ops.depthwise_pair(x, depthwise_weights(near), depthwise_weights(far)),
    }[path.removesuffix(TRAINING)]


def _run(module: Callable[[Any], Any], x: Any, way: tuple[str, ...], path: str) -> Run:
    import torch

    from van import ops

    def infer() -> None:
        with torch.inference_mode(), ops.taking(*way):
            module(x)

    def train() -> None:
        with ops.taking(*way):
            module(leaf).backward(probe)

    if not path.endswith(TRAINING):
        return infer
    leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
    with torch.no_grad():
        probe = torch.randn_like(module(x))
    return train


if __name__ == "__main__":
    sys.exit(main())
