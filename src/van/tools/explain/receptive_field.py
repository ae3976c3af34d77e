"""The effective receptive field: how much each pixel of the input moves the centre of the last map.

Source: Luo et al., arXiv 1701.04128: the gradient of the central unit with respect to the input. The map is that of the
last block, before the stage's norm, whose sum over channels would be constant where its weights are equal.

Shapes: C channels of the input, H, W of its sides, which are equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from ...errors import ConfigError
from ...files import atomic_outputs
from ...images.caption import with_caption
from ...images.preprocess import Preprocess
from ...images.sources import source_of
from ...inference.engines.torch_engine import TorchEngine
from ...inference.predictor import Predictor
from ...inference.session import Session, Source, open_session
from ...nn.backbone import Backbone
from .colors import colored
from .explainer import network_of
from .grad_cam import target_layer

if TYPE_CHECKING:
    from ...images.sources import Picture

SIZE, COUNT = 1024, 4
SHARES = (0.5, 0.95, 0.99)
_DECADES = 5.0  # that the picture shows below the largest contribution
_MOST = 2**13
_DRAWN = 640  # pixels that the side of a picture has at least


@dataclass(frozen=True, kw_only=True, eq=False)
class ReceptiveField:
    """The effective receptive field of a model.

    contribution: (H, W) float32, sum 1: the part of each pixel of the input. center: row and column of the pixel that
    the central unit is centred on. sides: share of the contribution -> side of the smallest square around the centre
    that holds it, as a share of the side of the input, at most 1. count: inputs that it is the mean over.
    """

    name: str
    contribution: np.ndarray
    center: tuple[int, int]
    sides: dict[float, float]
    count: int

    def draw(self) -> Image.Image:
        """Contributions on a logarithmic scale of five decades, and the squares of `sides`, RGB, with a caption."""
        share = self.contribution / max(float(self.contribution.max()), 1e-38)
        picture = colored(1 + np.log10(np.maximum(share, 10**-_DECADES)) / _DECADES)
        factor = -(-_DRAWN // picture.width)  # whole, so that every pixel stays a square
        size = picture.width * factor
        picture = picture.resize((size, size), Image.Resampling.NEAREST)
        pencil = ImageDraw.Draw(picture)
        font = ImageFont.load_default(max(10, size // 50))
        for part, side in self.sides.items():
            half = (side * size - 1) / 2
            row, column = ((center + 0.5) * factor for center in self.center)
            top, left = max(0.0, row - half), max(0.0, column - half)
            bottom, right = min(size - 1.0, row + half), min(size - 1.0, column + half)
            pencil.rectangle((left, top, right, bottom), outline="white", width=max(1, size // 500))
            pencil.text((left + size // 100, top + size // 200), f"{part:.0%}", fill="white", font=font)
        within = ", ".join(f"{side:.0%}" for side in self.sides.values())
        return with_caption(picture, f"squares: {within} of the side")

    def summary(self) -> str:
        """One line: the sides of the squares."""
        squares = ", ".join(f"{part:.0%} within {side:.1%}" for part, side in self.sides.items())
        return f"Effective receptive field at {self.contribution.shape[0]} pixels: {squares} of the side"

    def save(self, folder: str | Path) -> list[Path]:
        """Write erf.png and erf.npz (`contribution`, `center`, `shares`, `sides`, `count`) into a folder.

        Raises ConfigError where they cannot be written.
        """
        from .explanation import make_folder

        make_folder(Path(folder))
        paths = [Path(folder) / "erf.png", Path(folder) / "erf.npz"]
        with atomic_outputs(*paths) as (picture, arrays):
            self.draw().save(picture, "PNG")
            np.savez_compressed(
                arrays,
                contribution=self.contribution,
                center=np.array(self.center),
                shares=np.array(list(self.sides)),
                sides=np.array(list(self.sides.values())),
                count=np.array(self.count),
            )
        return paths


def effective_receptive_field(
    source: Source | Predictor,
    images: Sequence[Picture] | None = None,
    *,
    size: int = SIZE,
    count: int = COUNT,
    seed: int = 0,
    device: str = "cpu",
) -> ReceptiveField:
    """The effective receptive field of a model: contributions averaged over images, or over noise from a seed.

    source: what `van.Predictor` takes, but for exported files, or a Predictor; a backbone needs no head for it.
    images: made inputs of `size` pixels by the model's own statistics, scaled and cropped to the centre; None: normal
    noise of mean 0 and deviation 1, from `seed`. count: inputs to average over, the first of the images.
    Raises ConfigError for a model without gradients and for numbers that cannot be, DataError for an unfit image.
    """
    _check(size, count)
    session = source.opened if isinstance(source, Predictor) else open_session(source, device=device, optimize=False)
    engine, backbone = network_of(session)
    inputs = None if images is None else list(images)[:count]
    if inputs is not None and not inputs:
        raise ConfigError("images is empty; give some, or None for noise")
    exif = source.exif if isinstance(source, Predictor) else True
    if inputs is None:
        arrays = _noise(backbone.config.in_chans, size, count, seed)
    else:
        arrays = _arrays(session, inputs, size, exif=exif)
    total, used = torch.zeros((size, size), dtype=torch.float64), 0
    for array in arrays:
        total += _gradient(engine, backbone, array)
        used += 1
    stride = backbone.config.reductions[-1]
    center = (-(-size // stride) // 2) * stride
    mean = total.numpy() / max(float(total.sum()), 1e-300)
    return ReceptiveField(
        name=session.name,
        contribution=mean.astype(np.float32),
        center=(center, center),
        sides=_sides(mean, center),
        count=used,
    )


def _gradient(engine: TorchEngine, backbone: Backbone, images: Tensor) -> Tensor:
    """|d centre of the last map / d input| of one input (1, C, H, W), summed over channels: (H, W) float64."""
    autocast = torch.autocast(engine.device.type, engine.dtype, enabled=engine.dtype is not None)
    found: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        found.append(output)

    handle = target_layer(backbone).register_forward_hook(keep)
    try:
        images = images.to(engine.device).requires_grad_(True)
        with torch.enable_grad(), autocast:
            backbone.last(images)
    finally:
        handle.remove()
    unit = found[-1][0, :, found[-1].shape[2] // 2, found[-1].shape[3] // 2].sum()
    (gradient,) = torch.autograd.grad(unit, images)
    return gradient[0].abs().double().sum(0).cpu()


def _noise(channels: int, size: int, count: int, seed: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        yield torch.randn((1, channels, size, size), generator=generator)


def _arrays(session: Session, images: Sequence[Picture], size: int, *, exif: bool) -> Iterator[Tensor]:
    own = session.metadata.preprocess or Preprocess()
    preprocess = own.with_overrides(size=(size, size), crop_pct=1.0, resize="shortest")
    for number, image in enumerate(images):
        yield torch.from_numpy(preprocess(source_of(image, number, exif=exif).open()))[None]


def _sides(contribution: np.ndarray, center: int) -> dict[float, float]:
    size = len(contribution)
    distance = np.abs(np.arange(size) - center)
    ring = np.maximum(distance[:, None], distance[None, :])  # half sides of squares around the centre
    within = np.cumsum(np.bincount(ring.ravel(), weights=contribution.ravel()))
    halves = {share: int(np.searchsorted(within, share * within[-1])) for share in SHARES}
    return {share: min(1.0, (2 * half + 1) / size) for share, half in halves.items()}


def _check(size: int, count: int) -> None:
    for name, value, most in (("size", size, _MOST), ("count", count, 10_000)):
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise ConfigError(f"{name} is {value!r:.40}; expected a whole number from 1 to {most:,}")
