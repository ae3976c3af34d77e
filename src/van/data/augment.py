"""What training does to an image: timm's crop, policies and erasing, torchvision's affine, one normalisation.

Shapes: C channels (1 or 3), H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PIL import Image
from torch import Tensor

from ..errors import ConfigError, MissingExtraError
from ..preprocess import Preprocess, to_color
from ..recipes import AugmentSpec

Transform = Callable[[Image.Image], Tensor]


class TrainingTransform:
    """PIL image of any mode -> augmented float32 tensor (C, H, W), normalised as in evaluation.

    It draws from the global generators: call it inside `seeded`.
    Raises MissingExtraError without timm and torchvision, ConfigError for a policy that timm does not know.
    """

    def __init__(self, spec: AugmentSpec, preprocess: Preprocess) -> None:
        self.color = preprocess.color
        self.steps: list[Callable[[Any], Any]] = [*_geometry(spec, preprocess), *_appearance(spec, preprocess)]

    def __call__(self, image: Image.Image) -> Tensor:
        out: Any = to_color(image, self.color)
        for step in self.steps:
            out = step(out)
        return out


def _geometry(spec: AugmentSpec, preprocess: Preprocess) -> list[Callable[[Any], Any]]:
    """Which part of the image, and how it lies: PIL to PIL of the final size."""
    v2 = _torchvision()
    steps: list[Callable[[Any], Any]] = []
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


def _appearance(spec: AugmentSpec, preprocess: Preprocess) -> list[Callable[[Any], Any]]:
    """Policies and jitter on PIL, then the normalised tensor, then erasing."""
    _torchvision()
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
    return [*secondary.transforms, *final.transforms]


def _torchvision() -> Any:
    try:
        import timm  # noqa: F401
        from torchvision.transforms import v2
    except ImportError as error:
        raise MissingExtraError.of("timm and torchvision", "train", "for training") from error
    return v2
