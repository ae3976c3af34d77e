"""How the scores of a validation while training come about, exact over processes.

Shapes: N batch, C channels, H height, W width.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

if TYPE_CHECKING:
    from .base import Metric, Processor

Gather = Callable[[Any], list[Any]]  # everybody's value, in the order of the processes


class Validator(nn.Module):
    """Counts what a network gives for validation images; every process counts its own, `compute` is over all.

    batched: whether examples are stacked and moved to the device before `count`; else it gets them as a list.
    """

    batched: ClassVar[bool] = True

    @abstractmethod
    def example(self, image: Image.Image, target: Any, name: str) -> Any:
        """What `count` needs of an image; called in data workers. name: what to call it in errors."""

    @abstractmethod
    def reset(self) -> None:
        """Forget what was counted."""

    @abstractmethod
    def count(self, network: nn.Module, batch: Any) -> None:
        """Run the network, which is in eval mode, on a batch of examples, and count."""

    @abstractmethod
    def compute(self, gather: Gather) -> dict[str, float | Tensor]:
        """Score by name, of the images of all processes."""


class MetricValidator(Validator):
    """Images one by one through a task's Processor into its Metric, as `van eval` takes them.

    scores: name of the metric -> name of the validation's score, for those that `compute` gives.
    """

    batched: ClassVar[bool] = False

    def __init__(self, processor: Processor[Any, Any], metric: Metric[Any, Any], scores: Mapping[str, str]) -> None:
        super().__init__()
        self.processor, self.metric, self.scores = processor, metric, scores

    def example(self, image: Image.Image, target: Any, name: str) -> tuple[Any, Any, str]:
        return self.processor.prepare(image), target, name

    def reset(self) -> None:
        self.metric = self.metric.empty()

    def count(self, network: nn.Module, batch: Sequence[tuple[Any, Any, str]]) -> None:
        prepared, targets, names = zip(*batch, strict=True)
        self.metric.update(self.processor.run(NetworkEngine(network), prepared), targets, names)

    def compute(self, gather: Gather) -> dict[str, float | Tensor]:
        found = reduce(add, gather(self.metric)).compute()
        return {score: found[name] for name, score in self.scores.items()}


class NetworkEngine:
    """A network in training as a processor's engine: on its device, in the precision that is chosen around it."""

    runtime = "torch"

    def __init__(self, network: nn.Module) -> None:
        self.network: nn.Module = network

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """See Engine."""
        outputs = self.run_tensors(torch.from_numpy(images))
        return {name: output.cpu().numpy() for name, output in outputs.items()}

    def run_tensors(self, images: Tensor) -> dict[str, Tensor]:
        """See Engine."""
        like = next(self.network.parameters())
        with torch.inference_mode():
            output: Any = getattr(self.network, "raw", self.network)(images.to(like.device, like.dtype))
        outputs = {"logits": output} if isinstance(output, Tensor) else output
        return {name: each.float() for name, each in outputs.items()}

    def on(self, device: str) -> NetworkEngine:
        """The same: a network in training stays where it is."""
        return self
