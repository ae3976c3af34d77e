"""From an image and its truth to an example of training, and from examples to a padded batch.

Shapes: N batch, C channels, H, W sides of the padded batch, h, w those of one image, K objects.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ...configs.object_config import ObjectConfig
from ...data.joint import generator
from ...data.object_steps import (
    FixedCrop,
    Flip,
    OverlapCrop,
    Photometric,
    ScaleJitter,
    ShortSide,
    Step,
    Stretch,
    ZoomOut,
)
from ...data.object_transforms import ObjectTransform
from ...data.objects import Objects, Panoptic
from ...errors import ConfigError
from ...nn.object_model import Target
from ...recipes.coco.recipe import ObjectRecipe

_BATCH = 1  # of the random numbers that a whole batch shares, beside those of the image


@dataclass(frozen=True, eq=False)
class TrainingExample:
    """An augmented image (C, h, w) and what is true of it.

    divisor: of the sides of a batch. side: of a batch of squares, where it is drawn; the first example decides.
    """

    image: Tensor
    target: Target
    divisor: int
    side: int | None = None


class ObjectExample:
    """Makes an example of an image, drawn from (seed, key); called in data workers.

    masks: whether targets have masks. Raises ConfigError for sides that the model cannot take.
    """

    def __init__(self, recipe: ObjectRecipe, config: ObjectConfig, *, masks: bool) -> None:
        self.seed, self.augment = recipe.trainer.seed, recipe.augment
        self.divisor, self.stretched = config.size_divisor, config.stretched
        _check_sides(recipe, config)
        self.strong, self.plain = (
            ObjectTransform(mean=config.mean, std=config.std, steps=steps, masks=masks)
            for steps in (_steps(recipe, config), (*_resizing(config, None), Flip(probability=recipe.augment.flip)))
        )

    def __call__(self, image: Image.Image, truth: Objects | Panoptic, key: tuple[int, ...]) -> TrainingExample:
        off = self.augment.off_epoch
        is_plain = off is not None and key[0] >= off
        transform = self.plain if is_plain else self.strong
        apply = transform.panoptic if isinstance(truth, Panoptic) else transform
        pixels, target = apply(image, truth, generator(self.seed, *key))  # type: ignore[arg-type]
        sides = self.augment.short_sides if self.stretched and not is_plain else None
        side = None if sides is None else sides[int(generator(self.seed, *key, _BATCH).integers(len(sides)))]
        return TrainingExample(pixels, target, self.divisor, side)


def collate(examples: list[TrainingExample]) -> tuple[Tensor, list[Target]]:
    """Images (N, C, H, W), padded with zeros at the right and bottom to a common size, and their targets."""
    side = examples[0].side
    if side is not None:
        examples = [_at_size(each, (side, side)) for each in examples]
    height, width = (
        -(-max(each.image.shape[axis] for each in examples) // examples[0].divisor) * examples[0].divisor
        for axis in (-2, -1)
    )
    images = torch.stack([_padded(each.image, height, width) for each in examples])
    return images, [_padded_target(each.target, height, width) for each in examples]


def _check_sides(recipe: ObjectRecipe, config: ObjectConfig) -> None:
    sides = recipe.augment.short_sides
    if not sides:
        return
    if config.stretched:
        wrong = [side for side in sides if side % config.size_divisor]
        if wrong:
            raise ConfigError(
                f"augment.short_sides has {wrong[0]}; a {config.method} takes squares whose sides are multiples of "
                f"{config.size_divisor}"
            )
    elif max(sides) > config.max_size:
        raise ConfigError(
            f"augment.short_sides has {max(sides)}, model.max_size is {config.max_size}; raise model.max_size, or use "
            "shorter sides"
        )


def _steps(recipe: ObjectRecipe, config: ObjectConfig) -> tuple[Step, ...]:
    augment = recipe.augment
    steps: list[Step] = []
    if augment.photometric:
        steps.append(Photometric(probability=augment.photometric))
    if augment.zoom_out:
        steps.append(ZoomOut(probability=augment.zoom_out))
    if augment.overlap_crop:
        steps.append(OverlapCrop(probability=augment.overlap_crop))
    if augment.jitter is not None:
        assert augment.crop is not None
        steps.append(ScaleJitter(size=augment.crop, scale=augment.jitter))
    elif not config.stretched:
        steps += _resizing(config, augment.short_sides)
    if augment.crop is not None:
        steps.append(FixedCrop(size=augment.crop))
    if config.stretched:
        steps += _resizing(config, None)
    return (*steps, Flip(probability=augment.flip))


def _resizing(config: ObjectConfig, sides: tuple[int, ...] | None) -> tuple[Step, ...]:
    """To the sizes that the model takes."""
    if config.stretched:
        return (Stretch(sides=(config.min_size,)),)
    return (ShortSide(sides=sides or (config.min_size,), longest=config.max_size),)


def _at_size(example: TrainingExample, size: tuple[int, int]) -> TrainingExample:
    """The example, enlarged or shrunk."""
    before = example.image.shape[-2:]
    if tuple(before) == size:
        return example
    image = F.interpolate(example.image[None], size, mode="bilinear", antialias=True)[0]
    scale = torch.tensor([size[1] / before[1], size[0] / before[0]]).repeat(2)
    target: Target = {**example.target, "size": size, "boxes": example.target["boxes"] * scale}
    if "masks" in target:
        masks = target["masks"]
        target["masks"] = F.interpolate(masks[None], size)[0] if len(masks) else masks.new_zeros((0, *size))
    return TrainingExample(image, target, example.divisor)


def _padded(tensor: Tensor, height: int, width: int) -> Tensor:
    return F.pad(tensor, (0, width - tensor.shape[-1], 0, height - tensor.shape[-2]))


def _padded_target(target: Target, height: int, width: int) -> Target:
    masks = target.get("masks")
    return target if masks is None else {**target, "masks": _padded(masks, height, width)}
