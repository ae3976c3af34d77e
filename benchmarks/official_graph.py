"""The plain graph of a network of ours: what the published code makes of the same weights, to time against."""

from __future__ import annotations

import copy
from types import MethodType

from torch import Tensor, nn

from van.nn.backbone import Backbone
from van.nn.fused import FUSED, written_forward
from van.nn.layers import DepthwiseConv2d, LayerNorm2d, PointwiseConv2d

HEADS = ("van.nn.heads.", "van.nn.hamburger")


class PlainLayerNorm(nn.Module):
    """LayerNorm over positions as rows, copied there and back, as in the published code."""

    def __init__(self, ours: LayerNorm2d) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(ours.normalized_shape, eps=ours.eps)
        self.norm.load_state_dict(ours.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x.flatten(2).transpose(1, 2))
        return y.reshape(x.shape[0], *x.shape[2:], -1).permute(0, 3, 1, 2).contiguous()


def plain_conv(ours: nn.Conv2d) -> nn.Conv2d:
    """torch.nn's own layer with the weights of one of ours."""
    options = {"padding": ours.padding, "dilation": ours.dilation, "groups": ours.groups}
    plain = nn.Conv2d(ours.in_channels, ours.out_channels, ours.kernel_size, **options)
    plain.load_state_dict(ours.state_dict())
    return plain


def official(model: nn.Module) -> nn.Module:
    """A copy of the network without this package's primitives."""
    plain = copy.deepcopy(model)
    kinds = {LayerNorm2d: PlainLayerNorm, DepthwiseConv2d: plain_conv, PointwiseConv2d: plain_conv}
    for parent in list(plain.modules()):
        for name, child in parent.named_children():
            if type(child) in kinds:
                setattr(parent, name, kinds[type(child)](child))
        if isinstance(parent, Backbone):
            parent.forward = parent.pyramid  # type: ignore[method-assign]  # images in the layout that they come in
        elif type(parent).__module__.startswith(HEADS) and type(parent) in FUSED:
            parent.forward = MethodType(written_forward(type(parent)), parent)
    return plain.to(next(model.parameters()))  # device and type of the new layers
