"""What the models with torchvision's heads share: its call, the reading of older state dicts, the start of weights.

Shapes: N images, C channels, H, W sides of the padded batch, h, w those of one image, K objects.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...configs.object_config import ObjectConfig
from ...configs.older_detectors import present_key
from ...errors import ConfigError, DataError, MissingExtraError
from ..object_model import Detections, ObjectModel, Size, Target


def require_torchvision() -> None:
    """Raise MissingExtraError without torchvision."""
    try:
        import torchvision  # noqa: F401
    except ImportError as error:
        raise MissingExtraError.of("torchvision", "detection", "for detectors") from error


class TorchvisionDetector(ObjectModel):
    """A model with torchvision's heads, which can be called like torchvision's own."""

    backbone: Any

    def __init__(self, config: ObjectConfig) -> None:
        super().__init__()
        require_torchvision()
        self.config = config
        self.register_load_state_dict_pre_hook(_rename_older)

    def forward(self, images: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]] | None = None) -> Any:
        """torchvision's call. Training: a dict of losses; eval: one dict of boxes, labels, scores (and masks) each.

        images: (in_chans, h, w) on the 0 … 1 scale, of any sizes; they are resized and normalised as the configuration
        says. targets: per image `boxes` (K, 4), corners x, y, x, y in pixels, `labels` (K,) from 1, and where the model
        finds masks `masks` (K, h, w). The results are alike, masks (K, 1, h, w) as probabilities.
        Raises ConfigError for what are no such images, DataError in training for missing targets and for boxes without
        area.
        """
        _require_images(images, self.config.backbone.in_chans)
        if self.training:
            _require_targets(targets, len(images))
        transform = self._transform()
        batch, resized = transform(list(images), [dict(target) for target in targets] if targets else None)
        sizes = [(int(height), int(width)) for height, width in batch.image_sizes]
        if self.training:
            return self.losses(batch.tensors, [_from_zero(t, s) for t, s in zip(resized, sizes, strict=True)])
        found = [_from_one(each) for each in self.found(batch.tensors, sizes)]
        return transform.postprocess(found, sizes, [tuple(image.shape[-2:]) for image in images])

    def adapt_older(self, state: dict[str, Tensor], prefix: str) -> None:
        """Change what else differs in a state dict of version 0.1, whose keys are the present ones already."""

    @abstractmethod
    def found(self, images: Tensor, sizes: Sequence[Size]) -> list[Detections]:
        """The objects in a padded batch; sizes: (height, width) of each image without padding."""

    def _transform(self) -> Any:
        from torchvision.models.detection.transform import GeneralizedRCNNTransform

        c = self.config
        transform = GeneralizedRCNNTransform(
            c.min_size, c.max_size, list(c.mean), list(c.std), size_divisible=c.size_divisor
        )
        return transform.train(self.training)


def _rename_older(model: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    keys = [key for key in state if key.startswith(f"{prefix}backbone.")]
    older = {key: prefix + present_key(key.removeprefix(prefix)) for key in keys}
    older = {key: present for key, present in older.items() if key != present}
    for key, present in older.items():
        state[present] = state.pop(key)
    if older and isinstance(model, TorchvisionDetector):
        model.adapt_older(state, prefix)


def _require_images(images: Sequence[Tensor], channels: int) -> None:
    if not len(images):
        raise ConfigError("there are no images; expected a list of one or more")
    for image in images:
        if image.ndim != 3 or image.shape[0] != channels:
            raise ConfigError(
                f"an image has shape {tuple(image.shape)}; this model takes a list of ({channels}, H, W): [image] is "
                "one of one image"
            )


def require_one_target_each(targets: Sequence[Any], images: int, *names: str) -> None:
    """Raise DataError unless there is a target for every image, and each has the entries of these names."""
    if len(targets) != images:
        raise DataError(f"training on {images} images got {len(targets)} targets; expected one per image")
    for i, target in enumerate(targets):
        if missing := [name for name in names if name not in target]:
            raise DataError(f"the target of image {i} has no {' and no '.join(missing)}")


def _require_targets(targets: Sequence[Mapping[str, Tensor]] | None, images: int) -> None:
    if targets is None:
        raise DataError(f"training on {images} images got no targets; expected one per image")
    require_one_target_each(targets, images, "boxes", "labels")
    for i, target in enumerate(targets):
        boxes = target["boxes"]
        if boxes.ndim != 2 or boxes.shape[-1] != 4:
            raise DataError(f"the boxes of image {i} have shape {tuple(boxes.shape)}; expected (K, 4)")
        empty = (boxes[:, 2:] <= boxes[:, :2]).any(1)
        if empty.any():
            raise DataError(f"image {i} has the box {boxes[empty][0].tolist()}, which has no area; leave it out")


def _from_zero(target: Mapping[str, Tensor], size: Size) -> Target:
    """torchvision's target as ours: labels from 0."""
    ours: Any = {**target, "labels": target["labels"] - 1, "size": size}
    return ours


def _from_one(found: Detections) -> dict[str, Tensor]:
    """Objects as torchvision gives them: labels from 1."""
    masks = {} if found.masks is None else {"masks": found.masks[:, None]}
    return {"boxes": found.boxes, "labels": found.labels + 1, "scores": found.scores, **masks}


def conv_like(old: nn.Conv2d, out_channels: int) -> nn.Conv2d:
    """A convolution of another width, on the same device, in the same precision; its weights are not initialised."""
    side, like = old.kernel_size[0], old.weight
    new = nn.Conv2d(old.in_channels, out_channels, side, padding=side // 2, device=like.device, dtype=like.dtype)
    return new.train(old.training)


def draw_normal(layers: Sequence[nn.Module], std: float, generator: torch.Generator | None) -> None:
    """Weights N(0, std²), biases 0, norms as they start; other modules are left alone."""
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.normal_(layer.weight, std=std, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.GroupNorm):
            layer.reset_parameters()


def reordered(parameter: nn.Parameter, order: Sequence[int], *, before: int, each: int) -> None:
    """Put blocks of `each` rows that belong to a class in another order, after `before` rows that belong to none."""
    with torch.no_grad():
        rows = parameter[before:].unflatten(0, (-1, each))
        parameter[before:] = rows[list(order)].flatten(0, 1)
