"""What becomes of a backbone's BatchNorm while a head on it is trained.

Shapes: N batch, C channels, H height, W width.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..errors import ConfigError, UnknownNameError
from .backbone import Backbone

POLICIES = ("trained", "frozen", "sync")

_Norm = nn.modules.batchnorm._BatchNorm


def set_batch_norm(model: nn.Module, policy: str) -> None:
    """Let the BatchNorms of a model's backbones go by one of POLICIES, from the next `train()` on.

    "trained": each process normalises by its own batch, and keeps running statistics. "frozen": the statistics stay
    those of the checkpoint, in training too; scales and shifts are trained (OpenMMLab's `norm_eval`; to keep these as
    well, freeze the stages). "sync": batches are normalised over all processes, by torch's SyncBatchNorm on CUDA, and
    over gloo on CPUs.
    The keys of the model's state do not change, nor do frozen stages.
    Raises UnknownNameError for another policy, ConfigError for a model without a backbone, or one that is synchronised
    and should not be any more.
    """
    if policy not in POLICIES:
        raise UnknownNameError.of("batch norm policy", policy, POLICIES)
    backbones = [module for module in model.modules() if isinstance(module, Backbone)]
    if not backbones:
        raise ConfigError(f"{type(model).__name__} has no van.nn.Backbone, whose BatchNorms the policy is about")
    for backbone in backbones:
        if policy != "sync" and any(isinstance(norm, nn.SyncBatchNorm | _GlooBatchNorm) for norm in backbone.modules()):
            raise ConfigError(f"the BatchNorms are synchronised already; build the model again for {policy!r} ones")
        backbone.config = backbone.config.with_options(norm_eval=policy == "frozen")
        if policy == "sync":
            _synchronise(backbone)
        backbone.train(backbone.training)


def _synchronise(backbone: Backbone) -> None:
    if next(backbone.parameters()).is_cuda:
        nn.SyncBatchNorm.convert_sync_batchnorm(backbone)
    else:
        sync_on_cpu(backbone)


def sync_on_cpu(network: nn.Module) -> nn.Module:
    """BatchNorms replaced by ones that normalise over all processes by gloo; torch's own does so on GPUs only."""
    for name, child in list(network.named_children()):
        if isinstance(child, nn.BatchNorm2d):
            child.__class__ = _GlooBatchNorm
        elif not isinstance(child, _Norm):
            setattr(network, name, sync_on_cpu(child))
    return network


class _GlooBatchNorm(nn.BatchNorm2d):
    """(N, C, H, W) normalised by mean and variance over all processes, whose images may differ in size."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if not self.training or not dist.is_initialized():
            return super().forward(input)
        from torch.distributed.nn.functional import all_reduce

        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        ranks = dist.get_world_size()
        own = input.numel() // input.shape[1]
        total = torch.tensor(own)
        dist.all_reduce(total)
        count = int(total)
        share = own * ranks / count  # 1 where all hold equally many pixels
        mean = all_reduce(share * input.mean((0, 2, 3))) / ranks  # (C,)
        centred = input - mean[:, None, None]
        variance = all_reduce(share * centred.square().mean((0, 2, 3))) / ranks  # (C,)
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * count / max(count - 1, 1), momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return centred * scale[:, None, None] + self.bias[:, None, None]
