"""Milliseconds per batch on this CPU: ours in every form against the VAN of transformers 4.57, on the same weights.

    python benchmarks/cpu_inference.py [--kinds [KIND …]] [--ops [FAMILY …]] [--quick] [--peer-python PYTHON]

The two sides measure in turn, each in a process of its own (interleaved.py). Before anything is timed, all but
bfloat16 and int8 must give the same logits; those print their signal to noise.

Sides: peer (its eager code), peer-onnx and peer-openvino (that network, traced in its process, in ONNX Runtime and in
OpenVINO, for the very shape; segmenters for any); ours eager (`van.load`), optimised (`van.optimize`, with the C kernel
where there is a compiler), compiled (`van.optimize(compile=True)`), bf16 (`van.optimize` of the model in bfloat16),
onnx and openvino (`van.export`), onnx-int8 and openvino-int8 (`van.quantize`, calibrated on scikit-learn's photographs
and digits).
Segmenters, which transformers does not have: the peer is the plain graph of official_graph.py.

--ops: families of processors, here the kernel kept to their instructions, against the plain path (cpu_families.py): the
optimised network, and a training step of B0, never slower; and against the runtimes on the official graph, kept to the
same instructions where they let themselves. `--kinds` without a name measures these alone.

Medians over the rounds with their quartiles; the ratio is the median of the peer's time over ours, round by round. The
floor is what all multiply-adds of the network (convolutions, linear layers, other products; counted as in the tables of
`van info`) take at the rate of a large float32 product, which is measured in the same rounds; for bf16, at that of a
bfloat16 product. Aims depend on the processor's instructions, which VAN_OPS restricts: VAN_OPS=AVX512 withholds AMX.
Writes docs/results.json; exit code 1 when a requirement is missed, missed aims are printed. --quick: toy sizes, nothing
written or required.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import cpu_families
import cpu_results
import numpy as np
from interleaved import SIDES, Ask, add_options, looks_trained, serve, worker

from van.ops.c_library import INSTRUCTION_FLAGS
from van.ops.timing import burst_ms, in_turn, summary

MODELS = ("van_b0", "van_b1", "van_b2", "van_b3", "light_ham_van_b0")
PEERS = ("peer", "peer-onnx", "peer-openvino")
OURS = ("eager", "optimised", "compiled", "bf16", "onnx", "openvino", "onnx-int8", "openvino-int8")
KINDS = (*PEERS, *OURS)
# Largest difference of logits, as a part of the largest: float32 rounding through up to 38 blocks.
TOLERANCE = 1e-4


def main() -> int:
    """Measure, print, record; returns the exit code."""
    options = _options()
    rows: list[dict[str, Any]] = []
    families: list[dict[str, Any]] = []
    for threads in options.threads:
        if options.kinds:
            versions = _measure_all(options, threads, rows)
        if options.ops:
            families += cpu_families.measure(__file__, options, threads)
    if options.quick:
        return 0
    missed = [*cpu_results.missed(rows), *cpu_families.missed(families)]
    below = [*cpu_results.below_the_aim(rows), *cpu_families.below_the_aim(families)]
    print(*(missed or ["every requirement is met"]), *below, sep="\n")
    command = f"python benchmarks/cpu_inference.py {_flags(options)}"
    if options.record and rows:
        cpu_results.record(rows, versions, command=command)
    if options.record and families:
        cpu_families.record(families, command=command)
    return 1 if missed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), help=f"of {KINDS}; with any, the peer's eager too")
    parser.add_argument("--ops", nargs="*", default=["AVX2", "baseline"], help=f"of {tuple(INSTRUCTION_FLAGS)}")
    parser.add_argument("--size", type=int, help="side of the images; default: 224, segmenters 512")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of measurements, at least 7 for a result")
    add_options(parser, threads=[2, 1], sides=(*SIDES, "family"))
    options = parser.parse_args()
    for given, known in ((options.kinds, KINDS), (options.ops, INSTRUCTION_FLAGS)):
        if unknown := set(given) - set(known):
            parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    if options.worker:
        sys.exit(_serve(options))
    if options.quick:
        options.models, options.batches, options.size, options.rounds = ["van_b0"], [1, 2], 64, 3
        options.threads = options.threads[:1]
    options.kinds = [kind for kind in KINDS if kind in options.kinds or (options.kinds and kind == "peer")]
    return options


def _flags(options: argparse.Namespace) -> str:
    given = {"models": options.models, "batches": options.batches, "threads": options.threads}
    if options.kinds != list(KINDS):
        given["kinds"] = options.kinds
    given["ops"] = options.ops
    lists = " ".join(f"--{name} {' '.join(map(str, values))}" for name, values in given.items())
    return f"{lists} --rounds {options.rounds}"


def _measure_all(options: argparse.Namespace, threads: int, rows: list[dict[str, Any]]) -> dict[str, str]:
    """Every model and batch at a number of threads, added to `rows`; returns the versions."""
    versions: dict[str, str] = {}
    for model in options.models:
        plain = not model.startswith("van_")
        size = options.size or (512 if plain else 224)
        with (
            tempfile.TemporaryDirectory() as folder,
            worker(__file__, options, "plain" if plain else "peer", threads) as peer,
            worker(__file__, options, "ours", threads) as ours,
        ):
            versions |= peer(do="versions") | ours(do="versions")
            processor = ours(do="processor")
            ours(do="write", model=model, folder=folder)
            peer(do="load", folder=folder)
            for batch in options.batches:
                images = {"batch": batch, "size": size}
                peer(do="trace", folder=folder, **images)
                ours(do="load", folder=folder, kinds=options.kinds, **images)
                noise = _check_logits(peer, ours, options.kinds, model, images)
                case = {"model": model, "batch": batch, "threads": threads, "size": size} | processor
                found = _measure(peer, ours, options, images)
                rows += [case | row | {"sqnr_db": noise.get(row["kind"])} for row in found]
                cpu_results.show(rows[-len(found) :])
    return versions


def _check_logits(peer: Ask, ours: Ask, kinds: list[str], model: str, images: dict[str, int]) -> dict[str, float]:
    """Signal to noise of the logits in bfloat16 and int8; ends the program when others differ."""
    from van.exporting.int8_report import sqnr_db

    want, noise = np.array(peer(do="logits", kind="peer", **images)), {}
    for kind in kinds[1:]:
        got = np.array(ours(do="logits", kind=kind, **images))
        if kind in cpu_results.LOSSY:
            noise[kind] = sqnr_db([got], [want])
            continue
        gap = np.abs(got - want).max() / np.abs(want).max()
        if not gap < TOLERANCE:
            raise SystemExit(f"{model} {kind}: logits differ from the peer's by {gap:.2g} of the largest")
    return noise


def _measure(peer: Ask, ours: Ask, options: argparse.Namespace, images: dict[str, int]) -> list[dict[str, Any]]:
    """A row per kind, with the floor of its precision and of the same rounds."""
    kinds = ["peer", *options.kinds[1:]]
    precision = {kind: cpu_results.precision(kind) for kind in kinds}
    precisions = dict.fromkeys(precision.values())
    products = {("gemm", each): lambda each=each: ours(do="gemm", precision=each) for each in precisions}
    sides = {kind: peer if kind == "peer" else ours for kind in kinds}
    asks = {kind: lambda kind=kind, side=side: side(do="time", kind=kind, **images) for kind, side in sides.items()}
    times = in_turn(products | asks, options.rounds)
    floors = {each: ours(do="floor", gemm_ms=min(times.pop(("gemm", each))), **images) for each in precisions}
    return [{"kind": kind, **floors[precision[kind]], **summary(times["peer"], own)} for kind, own in times.items()]


# --- the processes


def _serve(options: argparse.Namespace) -> int:
    import torch

    sides = {"peer": _Peer, "plain": _Plain, "ours": _Ours, "family": cpu_families.Network}
    with torch.inference_mode():
        return serve(sides[options.worker](), *options.threads)


class _Worker:
    """What all sides answer; `networks` maps a kind to a function from images (N, C, H, W) to logits, arrays both."""

    def __init__(self) -> None:
        self.networks: dict[str, Any] = {}

    def logits(self, kind: str, batch: int, size: int) -> list[float]:
        """All logits of the images that the batch and size stand for."""
        found = self.networks[kind](_images(batch, size))
        return (found["logits"] if isinstance(found, dict) else found).ravel().tolist()

    def time(self, kind: str, batch: int, size: int) -> float:
        """Milliseconds per batch, the best of a burst."""
        network, images = self.networks[kind], _images(batch, size)
        return burst_ms(lambda: network(images))


class _Peer(_Worker):
    """transformers' network."""

    free = False  # whether the traced program takes any height and width

    def versions(self) -> dict[str, str]:
        import transformers

        return {"transformers": transformers.__version__}

    def load(self, folder: str) -> None:
        import torch
        from transformers import VanForImageClassification

        with torch.inference_mode(False):
            model = VanForImageClassification.from_pretrained(folder, local_files_only=True).eval()
        self.use(model, lambda y: y.logits)

    def use(self, model: Any, logits: Any) -> None:
        import torch

        self.model, self.of = model, logits
        self.networks["peer"] = lambda images: logits(model(torch.from_numpy(images))).numpy()

    def trace(self, folder: str, batch: int, size: int) -> None:
        """The network as a program for these images, which the other side makes files of."""
        import runtimes
        import torch

        model, of = self.model, self.of

        class Logits(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = model

            def forward(self, images: Any) -> Any:
                return of(self.model(images))

        images = torch.from_numpy(_images(batch, size))
        with torch.inference_mode(False):
            runtimes.trace(Logits(), images, Path(folder) / "peer.pt2", free=self.free)


class _Plain(_Peer):
    """The plain eager graph of a network that transformers does not have.

    OpenVINO 2026.4 crashes while it compiles a Hamburger for a fixed size.
    """

    free = True

    def versions(self) -> dict[str, str]:
        return {}

    def load(self, folder: str) -> None:
        import torch
        from official_graph import official

        with torch.inference_mode(False):
            plain = official(_loaded(folder))
        plain.forward = plain.decode  # logits at the head's size, as in exported files
        self.use(plain, lambda y: y)


class _Ours(_Worker):
    """This package's network, and the runtimes that the other's is exported to."""

    def versions(self) -> dict[str, str]:
        import importlib.metadata

        import van

        names = ("torch", "onnxruntime", "openvino", "nncf")
        return {"van": van.__version__} | {name: importlib.metadata.version(name) for name in names}

    def write(self, model: str, folder: str) -> None:
        looks_trained(model, folder)

    def load(self, folder: str, kinds: list[str], batch: int, size: int) -> None:
        """Make ready all kinds; what takes any batch is made once."""
        import runtimes
        import torch

        from van.tools import bench

        if not self.networks:
            self.model = _loaded(folder)
        forms = [kind for kind in kinds if kind in OURS and (kind == "compiled" or kind not in self.networks)]
        peers = {"peer-onnx": runtimes.onnx_runtime, "peer-openvino": runtimes.openvino}
        with torch.inference_mode(False), torch.no_grad():
            torch._dynamo.reset()
            self.networks |= bench.networks(self.model, forms, Path(folder), _images(batch, size))
            for kind in set(kinds) & set(peers):
                self.networks[kind] = peers[kind](Path(folder) / "peer.pt2", torch.get_num_threads())

    def processor(self) -> dict[str, str]:
        return cpu_results.processor()

    def gemm(self, precision: str) -> float:
        """Milliseconds of a large matrix product."""
        from van.tools import bench

        return burst_ms(bench.matrix_product(precision))

    def floor(self, gemm_ms: float, batch: int, size: int) -> dict[str, float]:
        """What all multiply-adds take at the rate of that product."""
        from van.tools import bench

        gflops, macs = bench.gemm_gflops(gemm_ms), bench.multiply_adds(self.model, (batch, 3, size, size))
        return {"gemm_gflops": gflops, "macs": macs, "floor_ms": bench.floor_ms(macs, gflops)}


def _images(batch: int, size: int) -> np.ndarray:
    """The same random images in every process."""
    return np.random.default_rng(batch).standard_normal((batch, 3, size, size), np.float32)


def _loaded(folder: str) -> Any:
    """The written network of ours, in eval mode."""
    import warnings

    import van

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        files = list(Path(folder).glob("van.safetensors"))
        return van.load(files[0] if files else folder)


if __name__ == "__main__":
    sys.exit(main())
