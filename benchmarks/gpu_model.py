"""Images per second and peak memory of whole networks on a GPU: the official graph, two neighbours, and ours.

    python benchmarks/gpu_model.py [--models van_b0 …] [--modes inference] [--batches 256] [--kinds official ours …]
                                   [--no-neighbours] [--rows FILE] [--no-record] [--picture PATH]
    python benchmarks/gpu_model.py --quick      # toy networks and sizes, also without a GPU; nothing is written

bfloat16: inference with bfloat16 weights at batch 1, 32 and 256, training by autocast at batch 128 (forward,
cross-entropy, backward, AdamW). B0 to B3 at 224², Light-Ham B2 at 512² (batch 1 and 32, training 16). Kinds:

official            the published graph: NCHW, library convolutions, LayerNorm on transposed copies
official, compile   the same under torch.compile; and with max-autotune
channels_last       the official graph with weights and images in that layout; and compiled
neighbours          timm's convnext_tiny and swin_tiny, eager and compiled: other networks of B2's size
ours                van.optimize; compiled; with max-autotune; with CUDA graphs (mode reduce-overhead; inference)

Before inference is timed, ours must give the official graph's outputs; van.optimize checks a training copy's. The
roofline is the traffic of a perfectly fused network, (13 + 4r) maps per block in inference and (49 + 12r) in training
(r: the expansion), at the speed of a copy measured in the same run. Exit code 1 when a requirement is missed. Writes
docs/results.json and docs/gpu_model.png, on a GPU only.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gpu_rows import Rows
from official_graph import official
from torch import Tensor, nn

import van
from van.configs.backbone import VanConfig

MODELS = ("van_b0", "van_b1", "van_b2", "van_b3", "light_ham_van_b2")
NEIGHBOURS = ("convnext_tiny", "swin_tiny_patch4_window7_224")
BATCHES = {224: (1, 32, 256), 512: (1, 32)}
TRAINING_BATCH = {224: 128, 512: 16}
COMPILED = {"compile": "default", "max-autotune": "max-autotune", "CUDA graphs": "reduce-overhead"}
OFFICIAL = ("official", "official, compile", "official, max-autotune")
LAYOUT = ("channels_last", "channels_last, compile")
OURS = ("ours", "ours, compile", "ours, max-autotune")
GRAPHS = ("ours, CUDA graphs",)
KINDS = (*OFFICIAL, *LAYOUT, *OURS, *GRAPHS)
TOLERANCE = 5e-2  # of the largest output, bfloat16 through dozens of blocks
TOY_SIZE = 64
TOY = VanConfig(embed_dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), mlp_ratios=(4, 4, 2, 2), num_classes=10)
TOY_NEIGHBOURS: dict[str, dict[str, Any]] = {
    "convnext_tiny": {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32), "num_classes": 10},
    "swin_tiny_patch4_window7_224": {
        "depths": (1, 1, 1, 1),
        "embed_dim": 16,
        "num_heads": (1, 1, 2, 2),
        "num_classes": 10,
    },
}
# mode -> (least speed over official eager, over official compiled); at the largest inference batch
REQUIRED = {"inference": (3.0, 1.5), "training": (2.5, 1.5)}
REQUIRED_MEMORY, REQUIRED_ROOFLINE = 0.6, {"van_b2": 0.5}


def main() -> int:
    """Measure, print, record; returns the exit code."""
    options = _options()
    import gpu_machine

    if not options.quick and not torch.cuda.is_available():
        print("no GPU: only --quick works here", file=sys.stderr)
        return 2
    about, floors = gpu_machine.describe(), gpu_machine.floors(quick=options.quick)
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    print(f"copy {floors['copy'] / 1e12:.3g} TB/s, bfloat16 products {2 * floors['gemm'] / 1e12:.3g} TFLOP/s")
    rows = Rows(options.rows, ("model", "mode", "batch", "size", "kind"))
    for name in (*options.models, *(NEIGHBOURS if options.neighbours else ())):
        for mode, batch, size in _settings(name, options):
            for kind in _kinds(name, mode, options):
                if not rows.have(model=name, mode=mode, batch=batch, size=size, kind=kind):
                    rows.append(_measure(name, mode, batch, size, kind, floors, options))
                    _print(rows)
    missed = [] if options.quick else list(_missed(rows))
    print(*(missed or ["toy sizes: nothing is required" if options.quick else "every requirement is met"]), sep="\n")
    keep = torch.cuda.is_available() and options.record and not options.quick
    if keep:
        _record(rows, about)
    if keep or options.picture:
        import gpu_picture

        title = f"bfloat16 networks: {about['machine']}"
        gpu_picture.draw_models(rows, options.picture or gpu_picture.DIRECTORY / "gpu_model.png", title=title)
    return 1 if missed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--modes", nargs="+", choices=tuple(REQUIRED), default=list(REQUIRED))
    parser.add_argument("--batches", nargs="+", type=int, help="of inference (default: 1, 32 and 256)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="those of the list that apply")
    parser.add_argument("--no-neighbours", dest="neighbours", action="store_false", help="leave the two neighbours out")
    parser.add_argument("--runs", type=int, default=20, help="timed runs of each, of which the median counts")
    parser.add_argument("--quick", action="store_true", help="toy sizes, to see that it works; nothing is written")
    parser.add_argument("--no-record", dest="record", action="store_false", help="leave docs/results.json alone")
    parser.add_argument("--picture", type=Path, help="draw it there, also of a trial")
    parser.add_argument("--rows", type=Path, help="JSON lines: each result as it comes; those that are there stay")
    options = parser.parse_args()
    if options.quick:
        options.models, options.runs = [name for name in options.models if name in ("van_b0", "light_ham_van_b2")], 1
        if not torch.cuda.is_available():
            os.environ["TRITON_INTERPRET"] = "1"
    return options


def _settings(name: str, options: argparse.Namespace) -> Iterator[tuple[str, int, int]]:
    """Mode, batch and side of the images."""
    size = TOY_SIZE if options.quick else 512 if name.startswith("light_ham") else 224
    batches = (1,) if options.quick else options.batches or BATCHES[size]
    if "inference" in options.modes:
        yield from (("inference", batch, size) for batch in batches)
    if "training" in options.modes:
        yield "training", 2 if options.quick else TRAINING_BATCH[size], size


def _kinds(name: str, mode: str, options: argparse.Namespace) -> list[str]:
    exist = ("official", "official, compile") if name in NEIGHBOURS else KINDS if mode == "inference" else KINDS[:-1]
    return [kind for kind in exist if kind in options.kinds]


# --- one measurement


def _measure(
    name: str, mode: str, batch: int, size: int, kind: str, floors: dict[str, float], options: argparse.Namespace
) -> dict[str, Any]:
    import gpu_machine

    _clean()
    where = gpu_machine.device()
    images = torch.randn((batch, 3, size, size), generator=torch.Generator().manual_seed(0)).to(where)
    network, plain = _network(name, kind, mode, size, options)
    if kind.startswith("channels_last"):
        images = images.contiguous(memory_format=torch.channels_last)
    step = _inference(network, images) if mode == "inference" else _training(network, images)
    if kind.startswith("ours") and mode == "inference":
        wanted = _inference(plain, images)()
        gap = ((step() - wanted).abs().max() / wanted.abs().max()).item()
        if not gap < TOLERANCE:
            raise SystemExit(
                f"{name}, batch {batch}: {kind} differs from the official graph by {gap:.2g} of the largest"
            )
    limit = None if name in NEIGHBOURS else floors["copy"] / _traffic(plain.config, size, mode)
    del plain
    step()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    ms = gpu_machine.milliseconds(step, runs=options.runs, flush=False)
    peak = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else float("nan")
    found = {"model": name, "mode": mode, "batch": batch, "size": size, "kind": kind, "ms": ms}
    return found | {"images_per_s": 1e3 * batch / ms, "peak_mib": peak, "limit": limit}


def _clean() -> None:
    torch._dynamo.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _network(name: str, kind: str, mode: str, size: int, options: argparse.Namespace) -> tuple[nn.Module, nn.Module]:
    """The network of that kind, ready for the mode, and the official one."""
    import gpu_machine

    where, training = gpu_machine.device(), mode == "training"
    dtype = torch.float32 if training else torch.bfloat16
    model = _fresh(name, size, options).to(where, dtype).train(training)
    plain = official(model) if name not in NEIGHBOURS else model
    if kind.startswith("ours"):
        example = torch.randn((1, 3, size, size), generator=torch.Generator().manual_seed(1)).to(where, dtype)
        ready = van.optimize(model, example=example, training=training)
    else:
        ready = plain.to(memory_format=torch.channels_last) if kind.startswith("channels_last") else plain
    way = COMPILED.get(kind.partition(", ")[2])
    if way is not None:
        compiling = {"backend": "eager"} if options.quick else {"mode": way}
        ready = torch.compile(ready, **compiling)  # type: ignore[call-overload]
    return ready, plain


def _fresh(name: str, size: int, options: argparse.Namespace) -> nn.Module:
    """The network from a seed, its scales away from their initial values, so that agreement means something."""
    if name in NEIGHBOURS:
        import timm

        torch.manual_seed(0)
        sizes = TOY_NEIGHBOURS[name] if options.quick else {}
        return timm.create_model(name, **sizes, **({"img_size": size} if name.startswith("swin") else {}))
    if options.quick:
        toy = {"embed_dims": TOY.embed_dims, "depths": TOY.depths, "mlp_ratios": TOY.mlp_ratios}
        model = van.create_model(name, seed=0, num_classes=10, **toy)
    else:
        model = van.create_model(name, seed=0)
    with torch.no_grad():
        for key, value in model.named_parameters():
            if key.endswith((".scale1", ".scale2")):
                value.fill_(0.1)
    return model


@torch.inference_mode()
def _infer(network: nn.Module, images: Tensor) -> Tensor:
    return network(images)


def _inference(network: nn.Module, images: Tensor) -> Callable[[], Tensor]:
    return partial(_infer, network, images.bfloat16())


def _training(network: nn.Module, images: Tensor) -> Callable[[], Tensor]:
    """A step on random labels: one per image, or per pixel."""
    fused = {"fused": True} if images.is_cuda else {}
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, **fused)
    labels: list[Tensor] = []

    def step() -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16):
            logits = network(images)
        if not labels:
            labels.append(torch.zeros((len(images), *logits.shape[2:]), dtype=torch.int64, device=images.device))
        loss = nn.functional.cross_entropy(logits.float(), labels[0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def _traffic(config: Any, size: int, mode: str) -> float:
    """Bytes per image of the blocks of a perfectly fused network in bfloat16."""
    config = getattr(config, "backbone", config)
    total = 0.0
    for stage, reduction in enumerate(config.reductions):
        side, channels, ratio = -(-size // reduction), config.embed_dims[stage], config.mlp_ratios[stage]
        maps = 13 + 4 * ratio if mode == "inference" else 49 + 12 * ratio
        total += 2 * side**2 * channels * maps * config.depths[stage]
    return total


# --- telling


def _reference(rows: list[dict[str, Any]], row: dict[str, Any], kind: str) -> dict[str, Any] | None:
    same = ("model", "mode", "batch", "size")
    return next((r for r in rows if r["kind"] == kind and all(r[key] == row[key] for key in same)), None)


def _ratios(rows: list[dict[str, Any]], row: dict[str, Any]) -> dict[str, float]:
    """The row against official eager and the faster official compiled one, its peak memory, and the roofline."""
    found = {}
    if eager := _reference(rows, row, "official"):
        found["over_official"] = row["images_per_s"] / eager["images_per_s"]
        found["memory_of_official"] = row["peak_mib"] / eager["peak_mib"]
    if compiled := [r for kind in OFFICIAL[1:] if (r := _reference(rows, row, kind))]:
        found["over_compiled"] = row["images_per_s"] / max(r["images_per_s"] for r in compiled)
    if row["limit"]:
        found["roofline"] = row["images_per_s"] / row["limit"]
    return {name: round(value, 4) for name, value in found.items() if value == value}


def _print(rows: list[dict[str, Any]]) -> None:
    row, found = rows[-1], _ratios(rows, rows[-1])
    words = {"over_official": "{:.2f}x official", "over_compiled": "{:.2f}x compiled"}
    words |= {"memory_of_official": "{:.0%} of its memory", "roofline": "{:.1%} of the roofline"}
    print(
        f"{row['model']:<28} {row['mode']:<9} {row['size']}² batch {row['batch']:<4} {row['kind']:<24}"
        f" {row['images_per_s']:9.1f} images/s {row['peak_mib']:8.0f} MiB ",
        ", ".join(text.format(found[name]) for name, text in words.items() if name in found),
        flush=True,
    )


def _missed(rows: list[dict[str, Any]]) -> Iterator[str]:
    """What is slower or larger than it has to be, as far as it was measured; ours is the faster of its kinds."""
    for mode, (over_eager, over_compiled) in REQUIRED.items():
        for model in dict.fromkeys(r["model"] for r in rows if r["model"].startswith("van_")):
            here = [r for r in rows if r["model"] == model and r["mode"] == mode]
            here = [r for r in here if r["batch"] == max(r["batch"] for r in here)]
            speed = {r["kind"]: r["images_per_s"] for r in here}
            ours = max(
                (r for r in here if r["kind"] in (*OURS, *GRAPHS)), key=lambda r: r["images_per_s"], default=None
            )
            if ours is None:
                continue
            compiled = max((speed[kind] for kind in OFFICIAL[1:] if kind in speed), default=0.0)
            others = (("eager", speed.get("official", 0.0), over_eager), ("compiled", compiled, over_compiled))
            for what, other, least in others:
                if ours["images_per_s"] < least * other:
                    found = f"{ours['images_per_s'] / other:.2f} times official {what}; required {least}"
                    yield f"MISSED: {model}, {mode}: {found}"
            if mode == "training":
                eager = _reference(rows, ours, "official")
                part = ours["peak_mib"] / eager["peak_mib"] if eager else 0.0
                if part > REQUIRED_MEMORY:
                    yield f"MISSED: {model}, training: {part:.0%} of official's memory; required {REQUIRED_MEMORY:.0%}"
            elif ours["images_per_s"] < REQUIRED_ROOFLINE.get(model, 0.0) * ours["limit"]:
                yield f"MISSED: {model}, inference: {ours['images_per_s'] / ours['limit']:.0%} of the roofline"


def _record(rows: list[dict[str, Any]], about: dict[str, str]) -> None:
    import ledger

    machine, versions = about["machine"], {name: value for name, value in about.items() if name != "machine"}
    entries = []
    for row in rows:
        place = "/".join(str(row[key]).replace(" ", "_") for key in ("model", "mode", "batch", "kind"))
        what = f"{row['model']}, {row['mode']}, {row['size']}², batch {row['batch']}, bfloat16: {row['kind']}"
        more = {"peak_mib": round(row["peak_mib"])} | _ratios(rows, row)
        figure = {"id": f"measured/gpu/model/{place}", "what": what, "value": round(row["images_per_s"], 1)}
        entries.append(figure | more | {"unit": "images/s", "machine": machine, "versions": versions, "table": None})
    ledger.record(entries, command=f"python {' '.join(sys.argv)}")


if __name__ == "__main__":
    sys.exit(main())
