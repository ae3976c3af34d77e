"""One of two processes that share a batch: `python two_processes.py RANK FOLDER`; writes losses and gradients."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torchvision_detectors import NAMES, noise, targets, tiny

IMAGES = (64, 96)


def learned(name, rows):
    """Losses and gradients of a detector on some of three images, which hold two, one and no objects."""
    everything = {"rpn_samples": 60000, "box_samples": 60000} if "mask" in name else {}
    model = tiny(name, **everything).train()
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.eval()  # whose statistics are a process's own
    truth = targets(4, size=(64, 80))
    for number, kept in enumerate((2, 1, 0, 2)):
        truth[number] |= {key: truth[number][key][:kept] for key in ("boxes", "labels", "masks")}
    losses = model.losses(noise(4, 3, *IMAGES)[rows], [truth[row] for row in rows])
    sum(losses.values()).backward()
    return {name: loss.detach() for name, loss in losses.items()}, [p.grad for p in model.parameters()]


def main(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    results = {}
    for name in NAMES:
        losses, gradients = learned(name, [0, 1] if rank == 0 else [2, 3])
        for value in [*losses.values(), *gradients]:
            dist.all_reduce(value)
            value /= 2  # as data parallelism does
        results[name] = losses, gradients
    if rank == 0:
        torch.save(results, Path(folder, "results.pt"))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
