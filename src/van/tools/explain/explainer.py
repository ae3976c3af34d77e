"""Image in, explanation out, for every task.

Shapes: C channels of a stage, h, w of its map.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...errors import ConfigError, DataError, UnknownNameError
from ...images.sources import source_of
from ...inference.engines.torch_engine import TorchEngine
from ...inference.predictor import Predictor
from ...inference.session import Session, Source
from ...nn.backbone import Backbone
from ...tasks.base import WholeView
from .attention import attentions_of, channel_mean, recorded, scaled, stage_numbers
from .explanation import Explanation
from .grad_cam import grad_cam, last_map
from .placing import in_image, without_padding

if TYPE_CHECKING:
    from ...images.sources import Picture

Target = str | int | None


def explain(
    source: Source | Predictor,
    image: Picture,
    *,
    stages: Sequence[int] | None = None,
    target: Target = None,
    device: str = "cpu",
    **predictor_options: Any,
) -> Explanation:
    """Where a network's answer for an image comes from: Grad-CAM, and its attention maps.

    source: what `van.Predictor` takes, but for exported files, or a Predictor. image: what a Predictor takes.
    stages: whose attention is wanted, numbered from 1; None: all. target: name or index of the class to explain; None:
    the network's own answer. predictor_options: of `van.Predictor`; the network is not optimised by default, since
    explanations call its modules one by one.
    Raises ConfigError for a model without gradients or without a head, an unknown class or stage; DataError for an
    image that cannot be used, or in which nothing of the class is found.
    """
    return Explainer(source, stages=stages, device=device, **predictor_options)(image, target)


class Explainer:
    """Explains the answers of one model: `Explainer("model.safetensors")("cat.jpg").draw_cam()`; see `explain`.

    Any number of threads may call it, which take turns; the predictor itself may be in use at the same time.
    """

    def __init__(
        self,
        source: Source | Predictor,
        *,
        stages: Sequence[int] | None = None,
        device: str = "cpu",
        **predictor_options: Any,
    ) -> None:
        self.predictor = _predictor(source, device, predictor_options)
        self.engine, self.backbone = network_of(self.predictor.opened)
        self.stages = stage_numbers(stages, self.backbone)
        self._turn = threading.Lock()

    def __call__(self, image: Picture, target: Target = None) -> Explanation:
        """The explanation of an image; see `explain` for arguments and errors."""
        index = self.class_index(target)
        source = source_of(image, 0, exif=self.predictor.exif)
        view = self.predictor.processor.whole(source.open())
        attentions = attentions_of(self.backbone)
        last = [attentions[stage - 1][-1] for stage in self.stages]
        with self._turn, last_map(self.backbone) as maps, recorded(last, channel_mean) as means:
            raw = self._outputs(view)
            cam_map, chosen, predicted, score = self._cam(raw, maps, index, source.name)
        strides = self.backbone.config.reductions
        attention = [_of_stage(mean, strides[s - 1], view) for mean, s in zip(means, self.stages, strict=True)]
        cam = without_padding(cam_map[0], strides[-1], view.extent).cpu()
        return Explanation(
            name=source.name,
            image=view.picture,
            box=view.box,
            label=self.predictor.opened.label(chosen),
            target=chosen,
            predicted=predicted,
            score=score,
            cam_map=cam.numpy(),
            cam=in_image((cam / cam.max().clamp(min=1e-30)).numpy(), strides[-1], view),
            stages=self.stages,
            attention=tuple(scaled(each).numpy() for each in attention),
            attention_mean=tuple(each.numpy() for each in attention),
            view=view,
            strides=tuple(strides[stage - 1] for stage in self.stages),
        )

    def attention_maps(self, image: Picture) -> tuple[tuple[np.ndarray, ...], ...]:
        """The attention of every block and channel: [stage][block] -> (C, h, w) float32, as it is, not stretched.

        Of the stages that this Explainer has. Raises DataError for an image that cannot be used.
        """
        view = self.predictor.processor.whole(source_of(image, 0, exif=self.predictor.exif).open())
        attentions = attentions_of(self.backbone)
        found = []
        with ExitStack() as stack:
            stack.enter_context(self._turn)
            stack.enter_context(torch.no_grad())
            for stage in self.stages:
                found.append(stack.enter_context(recorded(attentions[stage - 1], lambda each: each)))
            self._outputs(view)
        strides = self.backbone.config.reductions
        return tuple(
            tuple(_of_stage(each, strides[stage - 1], view).numpy() for each in blocks)
            for stage, blocks in zip(self.stages, found, strict=True)
        )

    def class_index(self, target: Target) -> int | None:
        """The index of a class, given by name or index, also as text; None stays.

        Raises UnknownNameError for a name that no class has, ConfigError for one that several have.
        """
        if target is None:
            return None
        session = self.predictor.opened
        number, names = session.num_classes, session.subject.classes
        if isinstance(target, str):
            same = [index for index, name in enumerate(names) if name == target]
            if len(same) > 1:
                raise ConfigError(f"{len(same)} classes are called {target!r}: {same}; give the index of one")
            if same:
                return same[0]
            if not target.isdecimal():
                raise UnknownNameError.of("class", target, names)
            target = int(target)
        if isinstance(target, bool) or not isinstance(target, int) or not 0 <= target < number:
            raise ConfigError(f"there is no class {target!r:.40}; expected a name, or an index from 0 to {number - 1}")
        return target

    def _outputs(self, view: WholeView) -> dict[str, Tensor]:
        return self.engine.outputs(torch.from_numpy(view.array)[None])

    def _cam(
        self, raw: dict[str, Tensor], maps: list[Tensor], target: int | None, name: str
    ) -> tuple[Tensor, int, int, float]:
        """The map, the class that is explained, the network's own answer, the score of the class."""
        session = self.predictor.opened
        if not maps:
            raise ConfigError(f"{session.name} does not run its last stage, which Grad-CAM is of")
        if any(bool(each.isnan().any()) for each in raw.values()):
            raise DataError(f"{name}: the network's outputs are no numbers (NaN); try precision fp32")
        scores = session.task.class_scores(session.config, raw)
        predicted = session.task.main_class(session.config, raw)
        target = predicted if target is None else target
        if not bool(scores[target].isfinite()):
            raise DataError(f"{name}: {_nothing(scores, session, target)}")
        return grad_cam(scores[target], maps[-1]), target, predicted, float(scores[target].detach())


def network_of(session: Session) -> tuple[TorchEngine, Backbone]:
    """The engine and the backbone of an opened model; raises ConfigError where there is nothing to look into."""
    engine = session.engine
    if not isinstance(engine, TorchEngine):
        raise ConfigError(
            f"{session.name} runs in {session.runtime}, which gives no gradients; explain the checkpoint instead"
        )
    backbone = next((module for module in engine.network.modules() if isinstance(module, Backbone)), None)
    if backbone is None:
        raise ConfigError(f"{session.name} holds no van.nn.Backbone; explanations are of networks of this package")
    return engine, backbone


def _predictor(source: Source | Predictor, device: str, options: dict[str, Any]) -> Predictor:
    if not isinstance(source, Predictor):
        return Predictor(source, device=device, **{"optimize": False} | options)  # hooks and gradients call modules
    if options or device != "cpu":
        name = next(iter(options), "device")
        raise ConfigError(f"{name} is of a predictor that is made here; this one is given, leave it out")
    return source


def _of_stage(values: Tensor | None, stride: int, view: WholeView) -> Tensor:
    """The one map (…, h, w) of a batch of one, on the host, without what padding made."""
    if values is None:
        raise ConfigError("a stage did not run, so it has no attention; leave its number out of stages")
    return without_padding(values[0], stride, view.extent).cpu().contiguous()


def _nothing(scores: Tensor, session: Session, target: int) -> str:
    found = [session.label(index) for index in scores.isfinite().nonzero()[:, 0].tolist()]
    if not found:
        return "the network finds nothing in this image, so there is nothing to explain"
    return f"the network finds nothing of class {session.label(target)!r}; found: {', '.join(found[:12])}"
