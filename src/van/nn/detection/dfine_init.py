"""How the parts of D-FINE begin. Source: its official code, where PyTorch's own initialisation is the rule."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

PRIOR = 0.01  # of a query being an object of a class, before training


def reset(module: nn.Module, generator: torch.Generator | None) -> None:
    """PyTorch's own initialisation of one layer, drawn from a generator; other modules are left alone."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator)
        if module.bias is not None:
            bound = 1 / math.sqrt(module.weight[0].numel())
            nn.init.uniform_(module.bias, -bound, bound, generator=generator)
    elif isinstance(module, nn.modules.batchnorm._BatchNorm | nn.LayerNorm):
        module.reset_parameters()


def reset_classes(linear: nn.Linear, generator: torch.Generator | None) -> None:
    """As `reset`, with a bias that makes every class improbable."""
    reset(linear, generator)
    nn.init.constant_(linear.bias, -math.log((1 - PRIOR) / PRIOR))


def reset_labels(embedding: nn.Embedding, generator: torch.Generator | None) -> None:
    """N(0, 1); zeros for the last row, which stands for no label."""
    nn.init.normal_(embedding.weight, generator=generator)
    with torch.no_grad():
        embedding.weight[-1].zero_()


def reset_decoder(decoder: Any, generator: torch.Generator | None) -> None:
    """What of the decoder begins otherwise than its layers: refinements and gates at zero."""
    for linear in decoder.query_pos_head.layers:
        nn.init.xavier_uniform_(linear.weight, generator=generator)
    for head in (decoder.pre_bbox_head, *decoder.bbox_embed):
        zero(head.layers[-1])
    for quality in decoder.lqe_layers:
        zero(quality.reg_conf.layers[-1])
    for layer in decoder.layers:
        zero(layer.gateway.gate)
        layer.encoder_attn.reset_parameters()


def zero(linear: nn.Linear) -> None:
    """Weights and bias 0."""
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
