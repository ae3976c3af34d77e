"""Small networks that find objects without having learned to: what they give depends on the image, and is decoded as
that of the real ones.

Shapes: N images, Q candidates, H, W sides of the input.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import van
from van.checkpoints.layout import shapes
from van.configs.backbone import VanConfig
from van.configs.object_config import DetectorConfig, InstanceSegmenterConfig, ObjectConfig, PanopticSegmenterConfig
from van.nn import Backbone
from van.nn.build import BUILDERS
from van.nn.object_model import Detections, ObjectModel, PanopticSegments, detections, panoptic

TINY = VanConfig(num_classes=0, embed_dims=(4, 4, 4, 8), depths=(1, 1, 1, 1), mlp_ratios=(1, 1, 1, 1))
SIZES = {"min_size": 64, "max_size": 96}


@dataclass(frozen=True, kw_only=True)
class FakeDetectorConfig(DetectorConfig):
    section: ClassVar[str] = "fake_detector"
    prefix: ClassVar[str] = "fake_detector"


@dataclass(frozen=True, kw_only=True)
class FakeInstanceConfig(InstanceSegmenterConfig):
    """boxed: masks of boxes, 14 x 14, else of the whole image."""

    section: ClassVar[str] = "fake_instance"
    prefix: ClassVar[str] = "fake_instance"

    boxed: bool = True


@dataclass(frozen=True, kw_only=True)
class FakePanopticConfig(PanopticSegmenterConfig):
    section: ClassVar[str] = "fake_panoptic"
    prefix: ClassVar[str] = "fake_panoptic"


class FakeModel(ObjectModel):
    """A box around each cell of a grid, a class by the cell's colour; light pixels are the mask."""

    def __init__(self, config: ObjectConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.backbone)
        self.head = nn.Conv2d(3, config.num_classes, 1)

    def losses(self, images, targets):
        return {"zero": self.head(images).sum() * 0}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.raw(images)

    def raw(self, images: Tensor) -> dict[str, Tensor]:
        cells = self.head(F.avg_pool2d(images, 16))  # (N, K, rows, columns)
        rows, columns = cells.shape[-2:]
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        corners = torch.stack((x, y, x, y), -1).reshape(1, -1, 4).to(images) * 16
        spread = cells.flatten(2).mT.sigmoid()  # (N, Q, K)
        grown = torch.tensor([-8.0, -8, 24, 24]).to(images) + spread.amax(-1, keepdim=True) * 6
        return {"boxes": corners + grown, "scores": spread, "pixels": images.mean(1)}

    def reset_parameters(self, generator=None) -> None:
        self.backbone.reset_parameters(generator)
        self.reset_classifier(self.config.num_classes, generator)

    def reset_classifier(self, num_classes, generator=None) -> None:
        self.config = self.config.with_options(num_classes=num_classes)
        self.head = nn.Conv2d(3, num_classes, 1)
        nn.init.normal_(self.head.weight, std=1.0, generator=generator)
        nn.init.zeros_(self.head.bias)
        if isinstance(self.config, FakePanopticConfig):
            nn.init.constant_(self.head.bias[-1:], 3.0)  # most pixels are background


def _decode(config, raw, sizes) -> list[Detections]:
    found = []
    for boxes, spread, pixels, (height, width) in zip(raw["boxes"], raw["scores"], raw["pixels"], sizes, strict=True):
        limit = boxes.new_tensor([width, height, width, height])
        boxes = torch.minimum(boxes.clamp_min(0), limit)
        scores, labels = spread.max(1)
        order = scores.argsort(descending=True, stable=True)
        inside = (boxes[order, 2:] > boxes[order, :2]).all(1) & (scores[order] >= config.score_threshold)
        order = order[inside][: config.detections_per_image]
        masks = _masks(config, pixels[:height, :width], boxes[order])
        found.append(
            Detections(
                boxes=boxes[order],
                labels=labels[order],
                scores=scores[order],
                masks=masks,
                boxed=getattr(config, "boxed", False),
            )
        )
    return found


def _masks(config, pixels: Tensor, boxes: Tensor) -> Tensor | None:
    if not isinstance(config, FakeInstanceConfig):
        return None
    whole = pixels.sigmoid()
    if config.boxed:
        crops = [whole[int(top) : int(bottom) + 1, int(left) : int(right) + 1] for left, top, right, bottom in boxes]
        seen = [F.interpolate(crop[None, None], (14, 14), mode="bilinear")[0] for crop in crops]
        return torch.cat(seen) if seen else whole.new_zeros(0, 14, 14)
    rows, columns = (torch.arange(side, device=boxes.device) + 0.5 for side in whole.shape)
    across = (columns >= boxes[:, :1]) & (columns < boxes[:, 2:3])
    down = (rows >= boxes[:, 1:2]) & (rows < boxes[:, 3:])
    return whole * (down[:, :, None] & across[:, None])


detections.register(FakeDetectorConfig)(_decode)
detections.register(FakeInstanceConfig)(_decode)


@panoptic.register(FakePanopticConfig)
def _segments(config, raw, sizes, output_sizes) -> list[PanopticSegments]:
    """The likeliest class of every cell of 16 pixels; a segment per class, none where no class is likely."""
    found = []
    for spread, pixels, size, wanted in zip(raw["scores"], raw["pixels"], sizes, output_sizes, strict=True):
        cells = spread.mT.reshape(-1, pixels.shape[0] // 16, pixels.shape[1] // 16)
        whole = F.interpolate(cells[None], pixels.shape, mode="nearest")[..., : size[0], : size[1]]
        sure, classes = F.interpolate(whole, wanted, mode="nearest")[0].max(0)
        classes = torch.where(sure > 0.5, classes, -1)
        labels = [label for label in classes.unique().tolist() if label >= 0]
        ids = torch.zeros(wanted, dtype=torch.int32)
        for number, label in enumerate(labels, start=1):
            ids[classes == label] = number
        found.append(PanopticSegments(segment_ids=ids, labels=tuple(labels), scores=(0.75,) * len(labels)))
    return found


def _shapes(config) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        model = FakeModel(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


FAKES = {"detection": FakeDetectorConfig, "instance": FakeInstanceConfig, "panoptic": FakePanopticConfig}
for _kind in FAKES.values():
    BUILDERS[_kind] = FakeModel
    shapes.register(_kind)(_shapes)


def fake_model(task: str, **options) -> FakeModel:
    """A network of a task for the digit scenes, its weights drawn from a fixed seed."""
    classes = {"num_classes": 11, "num_things": 10} if task == "panoptic" else {"num_classes": 10}
    model = FakeModel(FAKES[task](backbone=TINY, **{**SIZES, **classes, **options}))
    model.reset_parameters(torch.Generator().manual_seed(1))
    names = tuple("0123456789")
    model.classes = (*names, "background") if task == "panoptic" else names
    return model.eval()


def saved(task: str, path, **options) -> str:
    """The file of such a network."""
    van.save(fake_model(task, **options), path)
    return str(path)
