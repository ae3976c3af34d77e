"""What training does to an image: timm's crop, policies and erasing, torchvision's affine, one normalisation.

Shapes: C channels (1 or 3), H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..errors import ConfigError, MissingExtraError
from ..images.preprocess import Preprocess, to_color
from ..recipes import AugmentSpec
from .seeding import seeded

Transform = Callable[[Image.Image], Tensor]
Step = Callable[[Any], Any]


class TrainingTransform:
    """PIL image of any mode -> augmented float32 tensor (C, H, W), normalised as in evaluation.

    With several splits (S, C, H, W): versions of one crop, the first without policy and jitter.
    It draws from the global generators: call it inside `seeded`.
    Raises MissingExtraError without timm and torchvision, ConfigError for a policy that timm does not know.
    """

    def __init__(self, spec: AugmentSpec, preprocess: Preprocess) -> None:
        self.color, self.splits, self.spares_clean = preprocess.color, spec.splits, spec.erasing_spares_clean
        self.geometry = _geometry(spec, preprocess)
        self.appearance, self.normalise, self.erase = _appearance(spec, preprocess)

    def __call__(self, image: Image.Image) -> Tensor:
        out: Any = _through(self.geometry, to_color(image, self.color))
        if self.splits == 1:
            return _through([*self.appearance, *self.normalise, *self.erase], out)
        clean = _through(self.normalise if self.spares_clean else [*self.normalise, *self.erase], out.copy())
        others = [_through([*self.appearance, *self.normalise, *self.erase], out.copy()) for _ in range(1, self.splits)]
        return torch.stack([clean, *others])


class SeededExample:
    """An augmented image and its label, drawn from (seed, key): in every process and worker the same."""

    def __init__(self, transform: Transform, *, seed: int) -> None:
        self.transform, self.seed = transform, seed

    def __call__(self, image: Image.Image, label: int, key: tuple[int, ...]) -> tuple[Tensor, int]:
        with seeded(self.seed, *key):
            return self.transform(image), label


def _through(steps: list[Step], image: Any) -> Any:
    for step in steps:
        image = step(image)
    return image


def _geometry(spec: AugmentSpec, preprocess: Preprocess) -> list[Step]:
    """Which part of the image, and how it lies: PIL to PIL of the final size."""
    v2 = _torchvision()
    steps: list[Step] = []
    if spec.crop_scale is None:
        steps.append(preprocess.crop)
    else:
        steps.append(_random_crop(spec, preprocess))
    if spec.rotate_degrees or spec.shift or spec.zoom is not None:
        affine = v2.RandomAffine(
            spec.rotate_degrees,
            translate=(spec.shift, spec.shift) if spec.shift else None,
            scale=spec.zoom,
            interpolation=v2.InterpolationMode.BILINEAR,
        )
        steps.append(affine)
    if spec.hflip:
        steps.append(v2.RandomHorizontalFlip(spec.hflip))
    if spec.vflip:
        steps.append(v2.RandomVerticalFlip(spec.vflip))
    return steps


def _random_crop(spec: AugmentSpec, preprocess: Preprocess) -> Callable[[Any], Any]:
    from timm.data.transforms import RandomResizedCropAndInterpolation

    return RandomResizedCropAndInterpolation(
        preprocess.size,
        scale=spec.crop_scale,
        ratio=spec.crop_ratio or (3 / 4, 4 / 3),
        interpolation=spec.crop_interpolation or "random",
    )


def _appearance(spec: AugmentSpec, preprocess: Preprocess) -> tuple[list[Step], list[Step], list[Step]]:
    """Policies and jitter on PIL, then the normalised tensor, then erasing."""
    _torchvision()
    from timm.data.random_erasing import RandomErasing
    from timm.data.transforms_factory import transforms_imagenet_train

    try:
        _, secondary, final = transforms_imagenet_train(
            preprocess.size,
            auto_augment=spec.auto_augment,
            color_jitter=spec.color_jitter or None,
            force_color_jitter=True,  # timm would leave it out in silence beside a policy
            interpolation=spec.crop_interpolation or "random",
            mean=preprocess.mean,
            std=preprocess.std,
            re_prob=spec.erasing,
            re_mode=spec.erasing_mode,
            re_count=spec.erasing_count,
            separate=True,
        )
    except (AssertionError, KeyError, ValueError, IndexError) as error:
        raise ConfigError(
            f"augment.auto_augment is {spec.auto_augment!r}, which timm does not understand ({error}); "
            "e.g. 'rand-m9-mstd0.5-inc1'"
        ) from error
    for step in secondary.transforms:
        _keep_posterize(step)
    erase = [step for step in final.transforms if isinstance(step, RandomErasing)]
    return list(secondary.transforms), [step for step in final.transforms if step not in erase], erase


def _keep_posterize(policy: Any) -> None:
    """Let a policy of timm posterize to no bits at all, as published: Pillow 13 refuses what was a black image."""
    from timm.data.auto_augment import posterize

    operations = [*getattr(policy, "ops", ()), *(op for part in getattr(policy, "policy", ()) for op in part)]
    for operation in operations:
        if operation.aug_fn is posterize:
            operation.aug_fn = _posterize


def _posterize(image: Image.Image, bits: int, **named: Any) -> Image.Image:
    from timm.data.auto_augment import posterize

    return posterize(image, bits, **named) if bits > 0 else Image.new(image.mode, image.size)


def _torchvision() -> Any:
    try:
        import timm  # noqa: F401
        from torchvision.transforms import v2
    except ImportError as error:
        raise MissingExtraError.of("timm and torchvision", "train", "for training") from error
    return v2
