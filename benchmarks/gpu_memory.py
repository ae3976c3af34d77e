"""What a training step keeps for its backward pass on a GPU, counted without one: official graph and ours.

    python benchmarks/gpu_memory.py [--models van_b0 …] [--batch 128] [--size 224]

An estimate, not a measurement. The forward pass runs on PyTorch's fake CUDA tensors under bfloat16 autocast, at full
size, and every tensor that autograd saves is counted once. To it come 16 bytes per parameter (float32 weight, gradient,
AdamW's two averages). Not counted: what kernels and the backward pass need for a moment, and the allocator's gaps;
gpu_model.py measures the peak where there is a GPU. Exit code 1 when ours is above 60% of official.

official       the published graph
ours           the same network as it is loaded
ours, lean     what van.optimize(training=True) makes on CUDA: Backbone.set_lean
"""

from __future__ import annotations

import argparse
import sys
from unittest import mock

import torch
from official_graph import official
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

import van
from van import ops

MODELS = ("van_b0", "van_b1", "van_b2", "van_b3")
REQUIRED = 0.6
BYTES_PER_PARAMETER = 16


def kept_bytes(model: nn.Module, batch: int, size: int) -> int:
    """Bytes of the maps that a training forward pass on CUDA saves; parameters and images are not among them."""
    saved: dict[int, tuple[object, int]] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage._cdata] = storage, storage.nbytes()  # held, so that no other takes its place
        return tensor

    before = torch.get_autocast_dtype("cuda")
    kernels = mock.patch.object(ops.depthwise, "_ready", return_value=True)  # nobody can ask a GPU here
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, kernels:
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        state = {
            name: mode.from_tensor(t.detach()).to("cuda").requires_grad_(t.requires_grad) for name, t in tensors.items()
        }
        images = torch.empty((batch, 3, size, size), device="cuda")
        try:
            torch.set_autocast_enabled("cuda", True)  # torch.autocast itself refuses without a GPU
            torch.set_autocast_dtype("cuda", torch.bfloat16)
            with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
                _result = torch.func.functional_call(model, state, (images,))
        finally:
            torch.set_autocast_enabled("cuda", False)
            torch.set_autocast_dtype("cuda", before)
            torch.clear_autocast_cache()
        given = {t.untyped_storage()._cdata for t in (*state.values(), images)}
    return sum(size for storage, (_, size) in saved.items() if storage not in given)


def estimate(model: nn.Module, batch: int, size: int) -> dict[str, int]:
    """Kind -> bytes, for a network of ours in training mode."""
    fixed = BYTES_PER_PARAMETER * sum(p.numel() for p in model.parameters())
    kinds = {"official": kept_bytes(official(model), batch, size)}
    backbone = next(m for m in model.modules() if isinstance(m, van.nn.Backbone))
    for kind, lean in (("ours", False), ("ours, lean", True)):
        backbone.set_lean(lean)
        kinds[kind] = kept_bytes(model, batch, size)
    return {kind: kept + fixed for kind, kept in kinds.items()}


def main() -> int:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--size", type=int, default=224)
    options, missed = parser.parse_args(), 0
    print(f"estimates, batch {options.batch}, {options.size}², bfloat16 autocast, AdamW")
    for name in options.models:
        found = estimate(van.create_model(name, seed=0).train(), options.batch, options.size)
        parts = {kind: size / found["official"] for kind, size in found.items()}
        print(
            f"{name}: "
            + ", ".join(f"{kind} {size / 2**30:.2f} GiB ({parts[kind]:.0%})" for kind, size in found.items())
        )
        missed += parts["ours, lean"] > REQUIRED
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
