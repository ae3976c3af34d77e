"""What must hold before a network is folded: nothing may get lost that was put into it on purpose."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.utils import parametrize

from ..errors import ConfigError
from .backbone import Attention, Backbone, Block, FeedForward, PatchEmbed, Stage
from .fusable import REPLACEABLE, has_plain_weights, why_called
from .heads.layers import ConvNormReLU
from .layers import DropPath, PointwiseConv2d

# Classes of what is rebuilt or dropped; anything else in their places computes something of its own.
_KNOWN = {Stage, PatchEmbed, Block, Attention, FeedForward, PointwiseConv2d, nn.Conv2d, DropPath}
_KNOWN |= {nn.ModuleList, nn.Dropout, nn.Identity}
# Parts of a stage that stay as they are: they get the same maps before and after.
_KEPT = {Stage: "norm", Attention: "spatial", FeedForward: "depthwise"}


def refuse_what_folding_loses(model: nn.Module) -> None:
    """Raises ConfigError, naming module and remedy, where a folded copy would not compute what the model does."""
    refuse_replaced_forwards(model)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta:
            raise ConfigError(f"{name} lies on the meta device, without values; load the weights before optimising")
    for name, module in _rebuilt(model):
        kind = parametrize.type_before_parametrizations(module)
        kind = vars(kind).get("computes_like", kind)
        if kind not in _KNOWN and not isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ConfigError(
                f"{name} is a {kind.__name__}, which folding would lose; merge adapters first (PEFT: merge_and_unload),"
                " or use the network as it is"
            )
        if why_called(module):
            raise ConfigError(
                f"{name} has hooks, which folding would lose; remove them (those of weight norm, spectral norm and"
                " pruning with torch.nn.utils), or use the network as it is"
            )
        if not has_plain_weights(module):
            raise ConfigError(f"{name} has weights that are not plain tensors, which cannot be folded")


def refuse_replaced_forwards(model: nn.Module) -> None:
    """Raises ConfigError where a module's forward was replaced: a copy would go on calling the original's."""
    for name, module in model.named_modules():
        if not REPLACEABLE.isdisjoint(module.__dict__):
            raise ConfigError(
                f"{name or type(module).__name__} has a replaced forward, as torch.compile and accelerate's offloading"
                " make it, which no copy can keep; optimise the network before it is wrapped, or use it as it is"
            )


def evaluate_parametrizations(model: nn.Module) -> None:
    """Put plain tensors in the place of parametrized ones, with the values that they have now.

    PyTorch's own removal would also take the property from the class, which a copy shares with its original.
    """
    for module in list(model.modules()):
        if not parametrize.is_parametrized(module):
            continue
        names = list(module.get_submodule("parametrizations")._modules)
        values = {name: getattr(module, name).detach().clone() for name in names}
        module.__class__ = parametrize.type_before_parametrizations(module)
        del module._modules["parametrizations"]
        for name, value in values.items():
            module.register_parameter(name, nn.Parameter(value, requires_grad=False))


def _rebuilt(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules that folding rebuilds or drops, with their names in the model."""
    for name, module in model.named_modules():
        if isinstance(module, Backbone):
            for stage, part in module.stages.named_children():
                yield from _parts(part, f"{name}.stages.{stage}".lstrip("."))
        elif isinstance(module, ConvNormReLU) and isinstance(module.norm, nn.modules.batchnorm._BatchNorm):
            yield from ((f"{name}.{child}", part) for child, part in module.named_children())


def _parts(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    yield name, module
    for child, part in module.named_children():
        if child not in ("parametrizations", _KEPT.get(type(module))):
            yield from _parts(part, f"{name}.{child}")
