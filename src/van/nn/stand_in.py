"""An optimised copy in the place of a network that others hold, and may go on changing."""

from __future__ import annotations

from operator import attrgetter

from torch import nn

from .packed import Snapshot

_training = attrgetter("training")


class StandIn:
    """Which network to run: the copy, while nothing shows that the original is another one than when it was copied.

    Weights that were written or replaced, other modules, hooks, replaced forwards and the training mode are noticed;
    writes to `parameter.data` are not. Threads may share one.
    """

    def __init__(self, original: nn.Module, copied: nn.Module) -> None:
        self.original, self.copied = original, copied
        self._modules = tuple(original.modules())
        self._snapshot = Snapshot(original, self._modules)

    @property
    def holds(self) -> bool:
        """Whether the copy still stands for the original, which is in eval mode."""
        return not any(map(_training, self._modules)) and self._snapshot.holds()

    def chosen(self) -> nn.Module:
        """The network to run."""
        return self.copied if self.holds else self.original
