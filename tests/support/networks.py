"""Small networks for the tests: every norm, scale and statistic away from its initial value."""

import torch
from torch import nn

from van.configs.backbone import VanConfig
from van.nn import Classifier

TINY = VanConfig(embed_dims=(8, 16, 24, 32), depths=(1, 1, 2, 1), mlp_ratios=(4, 4, 2, 2), num_classes=5)


def tiny(seed=0, **options):
    """A trained-looking network of 13,000 parameters, in training mode."""
    return lived_in(Classifier(TINY.with_options(**options)), seed)


def lived_in(model, seed=0):
    """Draw what initialisation leaves at 0, 1 or 0.01 anew, so that a forgotten or misplaced one shows."""
    draw = torch.Generator().manual_seed(seed)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if not tensor.is_floating_point():
            continue
        with torch.no_grad():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5, generator=draw)
            elif "scale" in name.rsplit(".", 1)[-1]:
                tensor.uniform_(0.2, 0.8, generator=draw)
            elif tensor.ndim > 1:
                tensor.normal_(0, tensor[0].numel() ** -0.5, generator=draw)
            elif name.endswith("weight"):
                tensor.uniform_(0.5, 1.5, generator=draw)
            else:
                tensor.normal_(0, 0.1, generator=draw)
    return model


def images(*shape, seed=0, dtype=torch.float32):
    """Standard normal images from a seed: (N, C, H, W)."""
    return torch.randn(shape or (2, 3, 64, 64), generator=torch.Generator().manual_seed(seed)).to(dtype)


def batch_norms(model):
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


def gap(one, two):
    """Largest difference of two tensors, as a part of the largest value."""
    return ((one - two).abs().max() / two.abs().max()).item()


# the same map, or a part of it, in any memory a caller may have: functions of (N, C, H, W)
LAYOUTS = (
    lambda x: x.contiguous(),
    lambda x: x.contiguous(memory_format=torch.channels_last),
    lambda x: x.transpose(2, 3),
    lambda x: x[:, ::2, 1:, ::2],
    lambda x: x[:, :, :1].expand(-1, -1, 6, -1),
)
