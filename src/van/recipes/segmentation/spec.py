"""What training a segmenter is, as data: counted in iterations, checked on construction, stdlib only.

An iteration is one optimizer step. metrics.csv has a row for each validation, which comes every `val_every` of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ...configs.segmenter import SEGMENTERS, resolve
from ...errors import ConfigError
from ..base import StepRecipe
from ..checks import MAX_SIDE, at_least, in_range, one_of, ordered
from ..data_spec import STREAMS, BaseDataSpec
from ..model_spec import BaseModelSpec
from ..optim_spec import OptimSpec
from ..schedule_spec import StepScheduleSpec
from ..track_spec import TrackSpec
from ..trainer_spec import StepTrainerSpec
from .loss_spec import SegmentationLossSpec

MONITORS = ("val/mIoU", "val/aAcc", "val/mAcc", "val/mDice", "val/mFscore")
DECAYED = ("all_but_backbone_norms", "matrices", "everything")


@dataclass(frozen=True, kw_only=True)
class SegmentationModelSpec(BaseModelSpec):
    """The network, and the weights it starts from.

    name: a segmenter of `van list`; None: the checkpoint's own.
    checkpoint: file, folder or hub id to start from: a classifier's gives the backbone, a segmenter's everything;
    None: fresh weights.
    reset_head: fresh pixel classifiers even if the checkpoint's fit the classes.
    keep_head: the checkpoint's pixel classifiers whatever its classes are called, in the order of the data's; without
    it they stay where both name the same classes: letter case, blanks, "-" and "_" apart, in any order.
    channels, ham_channels, ham_rank, neck_channels, auxiliary, auxiliary_channels, drop_rate: as in SegmenterConfig;
    None keeps what the segmenter or the checkpoint has.
    """

    channels: int | None = None
    ham_channels: int | None = None
    ham_rank: int | None = None
    neck_channels: int | None = None
    auxiliary: bool | None = None
    auxiliary_channels: int | None = None
    drop_rate: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name is not None and resolve(self.name) not in SEGMENTERS:
            raise ConfigError(f"model.name is {self.name!r}, a classifier; a segmenter is e.g. light_ham_{self.name}")


@dataclass(frozen=True, kw_only=True)
class SegmentationDataSpec(BaseDataSpec):
    """The images and their label maps, how they are read, and how a test sees them.

    path: "scenes", a data set's folder (ADE20K, Cityscapes, VOC, COCO-Stuff layout) or its dataset.yaml; must be given.
    With a reader: the folder of the WebDataset shards, or the name of a Hugging Face data set.
    reader: None for files; timm's "wds" (WebDataset shards, streamed), "hfds" (a Hugging Face data set, downloaded) or
    "hfids" (the same, streamed): label maps hold the number of the class, 255 where nothing is known.
    val_images: how many validation images the validations during training use, spread over all; None: every one. Of a
    stream: the first ones, and to be given where its description does not say how many there are.
    image_key, label_key: names of the image and its label map in a sample; None: "jpg" and "mask.png" in shards,
    "image" and "annotation" of Hugging Face.
    classes: text file, a class per line in label order; a reader needs it.
    val_fraction, split_seed: of the split of a described data set without a validation part.
    scene_size: side of the digit scenes in pixels; None: 64.
    mean, std: per channel, on the 0 … 1 scale; None: the checkpoint's, else ImageNet's.
    resize: (longest, shortest) side in pixels into which an image is scaled, its shape kept; null keeps its size.
    window, stride: test by windows of so many pixels every so many; null: the whole image at once.
    size_divisor: test with sides stretched to a multiple of it; 1 leaves them alone; None: the network's published
    value (HamNet 1, all others 32).
    """

    READERS = ("hfds", *STREAMS)
    FILES = "label maps in files"
    EMBEDDED = "scenes"

    scene_size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize: tuple[int, int] | None = (2048, 512)
    window: int | None = None
    stride: int | None = None
    size_divisor: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resize is not None and (len(self.resize) != 2 or min(self.resize) < 1):
            raise ConfigError(f"data.resize is {self.resize}; expected (longest, shortest) side, e.g. (2048, 512)")
        for name in ("scene_size", "window", "stride", "size_divisor"):
            at_least(f"data.{name}", getattr(self, name), 1, MAX_SIDE)
        if self.scene_size is not None and self.path != "scenes":
            raise ConfigError(f"data.scene_size belongs to the digit scenes, not to {self.path}; leave it out")
        if self.reader is not None and self.classes is None:
            raise ConfigError(
                f"data.reader {self.reader} has label maps, which name no classes; give data.classes, a text file"
            )
        if self.embedded and self.check is not None:
            raise ConfigError("data.check belongs to files; the digit scenes have none")

    def _useless(self) -> dict[str, bool]:
        return super()._useless() | {"classes": self.reader is None}


@dataclass(frozen=True, kw_only=True)
class SegmentationAugmentSpec:
    """What training does to an image and its label map together.

    crop: (height, width) in pixels.
    scale: range of the random factor on top of data.resize.
    max_class_share: a crop's largest class stays below this share of its labelled pixels, in ten tries; 1: any crop.
    flip, vflip: probability of mirroring left to right, and top to bottom.
    photometric: distort brightness, contrast, saturation and hue.
    """

    crop: tuple[int, int] = (512, 512)
    scale: tuple[float, float] = (0.5, 2.0)
    max_class_share: float = 0.75
    flip: float = 0.5
    vflip: float = 0.0
    photometric: bool = True

    def __post_init__(self) -> None:
        if len(self.crop) != 2 or min(self.crop) < 1:
            raise ConfigError(f"augment.crop is {self.crop}; expected (height, width) in pixels, e.g. (512, 512)")
        ordered("augment.scale", self.scale)
        in_range("augment.flip", self.flip, 0, 1)
        in_range("augment.vflip", self.vflip, 0, 1)
        if not 0 < self.max_class_share <= 1:
            raise ConfigError(f"augment.max_class_share is {self.max_class_share}; expected a share in (0, 1]")


@dataclass(frozen=True, kw_only=True)
class SegmentationOptimSpec(OptimSpec):
    """The optimizer, by timm's names, and what decays.

    weight_decay: of the parameters that `decayed` names.
    decayed: "all_but_backbone_norms" (published for Ham and UperNet: the heads' norms, biases and layer scales decay),
    "matrices" (parameters with more than one dimension), or "everything" (published for Semantic FPN).
    layer_decay: the rate of every earlier layer of the backbone (patch embedding, block) is this share of the next
    one's, neck and heads learn at the full rate; None: all layers learn alike.
    clip_agc: adaptive clipping: largest norm of a unit's gradient as a share of its weights' norm; spares the pixel
    classifiers.
    """

    lr: float = 6e-5
    weight_decay: float = 0.01
    decayed: str = "all_but_backbone_norms"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("optim.decayed", self.decayed, DECAYED)


@dataclass(frozen=True, kw_only=True)
class SegmentationTrainerSpec(StepTrainerSpec):
    """How long, on what, and where the results go.

    eval_batch_size: must be null: validation takes images one by one, because their sizes differ.
    compile: torch.compile the backbone for training.
    monitor: metric for best.ckpt and early stopping, "val/mIoU", "val/aAcc", "val/mAcc", "val/mDice" or "val/mFscore".
    workers: processes that read images, per device; None: by the machine, 0 for the digit scenes.
    """

    MONITORS = MONITORS

    batch_size: int = 2
    batch_norm: str = "sync"
    monitor: str = "val/mIoU"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eval_batch_size is not None:
            raise ConfigError(
                "trainer.eval_batch_size has no effect on segmentation, whose validation takes images one by one; "
                "leave it out"
            )


@dataclass(frozen=True, kw_only=True)
class SegmentationRecipe(StepRecipe):
    """Training of a segmenter, entirely."""

    task: ClassVar[str] = "segmentation"

    model: SegmentationModelSpec = field(default_factory=SegmentationModelSpec)
    data: SegmentationDataSpec = field(default_factory=SegmentationDataSpec)
    augment: SegmentationAugmentSpec = field(default_factory=SegmentationAugmentSpec)
    loss: SegmentationLossSpec = field(default_factory=SegmentationLossSpec)
    optim: SegmentationOptimSpec = field(default_factory=SegmentationOptimSpec)
    schedule: StepScheduleSpec = field(default_factory=StepScheduleSpec)
    trainer: SegmentationTrainerSpec = field(default_factory=SegmentationTrainerSpec)
    track: TrackSpec = field(default_factory=TrackSpec)

    @staticmethod
    def score_text(summary: Mapping[str, Any]) -> str:
        """The score in a run's summary: `mIoU 41.20%`; nan where no pixel had a label."""
        return f"mIoU {summary.get('val/mIoU', math.nan):.2%}"
