"""What becomes of BatchNorm's statistics where several processes train together, or memory allows few images.

Shapes: N batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning import Callback, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..nn.batch_norm import sync_on_cpu as sync_on_cpu

RECALIBRATION_IMAGES = 4096

_Norm = nn.modules.batchnorm._BatchNorm


class BatchNormPolicy(Callback):
    """Acts on the statistics as `trainer.batch_norm` says.

    "reduce": each process keeps statistics of its own images; before every validation they are averaged.
    "sync": batches are normalised over all processes (CUDA: torch's SyncBatchNorm, which Lightning puts in).
    "frozen": the checkpoint's statistics stay, in training too.
    "recalibrate": before every validation the statistics are computed from `images` training images over all
    processes, with the weights as they are: averaged weights get statistics of their own.
    """

    def __init__(self, policy: str, *, images: int | None = None) -> None:
        self.policy, self.images = policy, images or RECALIBRATION_IMAGES
        self.names: list[str] = []

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        # modules of frozen stages are in eval mode already, and keep what they have
        self.names = [name for name, norm in _norms(pl_module.model) if norm.training]
        self._freeze(pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._freeze(pl_module)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.sanity_checking or self.policy in ("frozen", "sync"):
            return
        networks = [pl_module.model, *([pl_module.evaluated] if pl_module.evaluated is not pl_module.model else [])]
        for network in networks:
            norms = [norm for name, norm in _norms(network) if name in self.names]
            if self.policy == "recalibrate":
                data, epoch = trainer.datamodule, trainer.current_epoch
                recalibrate(network, norms, data.calibration_batches(epoch, -(-self.images // trainer.world_size)))
            if trainer.world_size > 1:
                average_over_processes(norms)

    def _freeze(self, pl_module: Any) -> None:
        if self.policy == "frozen":
            for _, norm in _norms(pl_module.model):
                norm.eval()


def average_over_processes(norms: Sequence[_Norm]) -> None:
    """Running means and variances become those of all processes, averaged.

    Source: timm's distribute_bn, which the official script calls each epoch.
    """
    kept = [statistic for norm in norms for statistic in (norm.running_mean, norm.running_var) if statistic is not None]
    if not kept:
        return
    flat = torch.cat([statistic.flatten() for statistic in kept])
    dist.all_reduce(flat)
    for statistic, mean in zip(kept, (flat / dist.get_world_size()).split([s.numel() for s in kept]), strict=True):
        statistic.copy_(mean.view_as(statistic))


@torch.no_grad()
def recalibrate(network: nn.Module, norms: Sequence[_Norm], batches: Any) -> None:
    """Running statistics of `norms` become the plain average over `batches` of (N, C, H, W) images.

    Only these layers are in training mode meanwhile: without drop path and dropout, as in evaluation.
    """
    device = next(network.parameters()).device
    with _as_training(network, norms):
        for norm in norms:
            norm.reset_running_stats()
        run: Any = getattr(network, "raw", network)  # models that find objects are called with lists of images
        for images in batches:
            run(images.to(device))


def _norms(network: nn.Module) -> Iterator[tuple[str, _Norm]]:
    return ((name, module) for name, module in network.named_modules() if isinstance(module, _Norm))


@contextmanager
def _as_training(network: nn.Module, norms: Sequence[_Norm]) -> Iterator[None]:
    modes = {module: module.training for module in network.modules()}
    momenta = [norm.momentum for norm in norms]
    network.eval()
    for norm in norms:
        norm.train()
        norm.momentum = None  # a plain average
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def calibration_loader(
    dataset: Any, keys: Any, *, images: int, batch_size: int, workers: int, collate: Any = None
) -> Iterator[Tensor]:
    """Images (N, C, H, W) of the first `images` keys, in whole batches."""
    chosen = list(islice(iter(keys), images))
    generator = torch.Generator().manual_seed(0)  # not the global one, which belongs to the training
    loader = DataLoader(
        dataset,
        batch_size=min(batch_size, len(chosen)),
        sampler=chosen,
        drop_last=True,
        num_workers=workers,
        generator=generator,
        collate_fn=collate,
    )
    return (images_of(batch) for batch in loader)


def images_of(batch: Any) -> Tensor:
    """The images (N, C, H, W) of a training batch; augment.splits gives an image several versions, (N, S, C, H, W)."""
    images: Tensor = batch[0]
    return images.flatten(0, 1) if images.ndim == 5 else images
