"""What a segmentation run is, as data: counted in iterations, checked on construction, stdlib only.

An iteration is one optimizer step. A *period* is the `val_every` iterations between two validations; metrics.csv has
a row for each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ..configs.backbone import ATTENTION_OPTIONS
from ..configs.segmenter import SEGMENTERS, resolve
from ..errors import ConfigError
from .checks import MAX_SIDE, at_least, check_head, file_name, in_range, no_detector, one_of, ordered
from .optim_spec import OptimSpec
from .process_checks import MAX_PROCESSES, MAX_SEED, check_frozen, check_processes
from .sections import Sectioned
from .segmentation_loss_spec import LossSpec
from .spec import PRECISIONS
from .track_spec import TrackSpec

MONITORS = ("val/mIoU", "val/aAcc", "val/mAcc", "val/mDice", "val/mFscore")
DECAYED = ("all_but_backbone_norms", "matrices", "everything")


@dataclass(frozen=True, kw_only=True)
class SegmentationModelSpec:
    """The network, and the weights it starts from.

    name: a segmenter of `van list`; None: the checkpoint's own.
    checkpoint: file, folder or hub id to start from: a classifier's gives the backbone, a segmenter's everything;
    None: fresh weights.
    reset_head: fresh pixel classifiers even if the checkpoint's fit the classes.
    keep_head: the checkpoint's pixel classifiers whatever its classes are called, in the order of the data's; without
    it they stay where both name the same classes: letter case, blanks, "-" and "_" apart, in any order.
    grad_checkpointing: recompute blocks in the backward pass: less memory, more time.
    channels, ham_channels, ham_rank, neck_channels, auxiliary, auxiliary_channels, drop_rate: as in SegmenterConfig.
    drop_path_rate, frozen_stages, norm_eval, layer_norm_eps, layer_scale_init, attention, kernel_size, dilation,
    embed_dims, depths, mlp_ratios, patch_sizes, strides: of the backbone, as in VanConfig.
    None keeps what the segmenter or the checkpoint has.
    """

    name: str | None = None
    checkpoint: str | None = None
    reset_head: bool = False
    keep_head: bool = False
    grad_checkpointing: bool = False
    channels: int | None = None
    ham_channels: int | None = None
    ham_rank: int | None = None
    neck_channels: int | None = None
    auxiliary: bool | None = None
    auxiliary_channels: int | None = None
    drop_rate: float | None = None
    drop_path_rate: float | None = None
    frozen_stages: int | None = None
    norm_eval: bool | None = None
    layer_norm_eps: float | None = None
    layer_scale_init: float | None = None
    attention: str | None = None
    kernel_size: int | None = None
    dilation: int | None = None
    embed_dims: tuple[int, ...] | None = None
    depths: tuple[int, ...] | None = None
    mlp_ratios: tuple[float, ...] | None = None
    patch_sizes: tuple[int, ...] | None = None
    strides: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.name is not None:
            no_detector(self.name)
        if self.name is not None and resolve(self.name) not in SEGMENTERS:
            raise ConfigError(f"model.name is {self.name!r}, a classifier; a segmenter is e.g. light_ham_{self.name}")
        if self.attention is not None:
            one_of("model.attention", self.attention, ATTENTION_OPTIONS)
        check_head(self)
        if self.layer_scale_init is not None and self.checkpoint is not None:
            raise ConfigError("model.layer_scale_init has no effect on a checkpoint's weights; leave one of them out")

    def options(self) -> dict[str, Any]:
        """The fields of SegmenterConfig and its backbone that are set."""
        own = ("name", "checkpoint", "reset_head", "keep_head", "grad_checkpointing")
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in own}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class SegmentationDataSpec:
    """The images, and how a test sees them.

    path: "scenes", a data set's folder (ADE20K, Cityscapes, VOC, COCO-Stuff layout) or its dataset.yaml; must be given.
    val_fraction, split_seed: of the split of a described data set without a validation part.
    scene_size: side of the digit scenes in pixels; None: 64.
    mean, std: per channel, on the 0 … 1 scale; None: the checkpoint's, else ImageNet's.
    resize: (longest, shortest) side in pixels into which an image is scaled, its shape kept; null keeps its size.
    window, stride: test by windows of so many pixels every so many; null: the whole image at once.
    size_divisor: test with sides stretched to a multiple of it; 1 leaves them alone; None: the network's published
    value (HamNet 1, all others 32).
    val_images: how many validation images the validations during training use, spread over all; None: every one.
    """

    path: str | None = None
    val_fraction: float | None = None
    split_seed: int | None = None
    scene_size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize: tuple[int, int] | None = (2048, 512)
    window: int | None = None
    stride: int | None = None
    size_divisor: int | None = None
    val_images: int | None = None

    def __post_init__(self) -> None:
        if self.val_fraction is not None and not 0 < self.val_fraction < 1:
            raise ConfigError(
                f"data.val_fraction is {self.val_fraction}; expected a fraction between 0 and 1, e.g. 0.2"
            )
        if self.resize is not None and (len(self.resize) != 2 or min(self.resize) < 1):
            raise ConfigError(f"data.resize is {self.resize}; expected (longest, shortest) side, e.g. (2048, 512)")
        for name in ("scene_size", "window", "stride", "size_divisor"):
            at_least(f"data.{name}", getattr(self, name), 1, MAX_SIDE)
        at_least("data.val_images", self.val_images, 1)
        if self.scene_size is not None and self.path != "scenes":
            raise ConfigError(f"data.scene_size belongs to the digit scenes, not to {self.path}; leave it out")


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

    name: of timm.optim.list_optimizers().
    lr: at a global batch of lr_batch images; for another global batch it is scaled linearly, with a notice.
    lr_batch: the batch that lr is meant for; None: lr is used as it is.
    weight_decay: of the parameters that `decayed` names.
    decayed: "all_but_backbone_norms" (published for Ham and UperNet: the heads' norms, biases and layer scales decay),
    "matrices" (parameters with more than one dimension), or "everything" (published for Semantic FPN).
    layer_decay: belongs to classification recipes; must be None.
    betas, eps, momentum: None keeps the optimizer's own; one that the optimizer does not have raises ConfigError.
    clip_norm: largest norm of the gradient; None: not clipped.
    clip_value: largest absolute value of an element of the gradient.
    clip_agc: adaptive clipping: largest norm of a unit's gradient as a share of its weights' norm; spares the pixel
    classifiers.
    """

    lr: float = 6e-5
    weight_decay: float = 0.01
    decayed: str = "all_but_backbone_norms"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("optim.decayed", self.decayed, DECAYED)
        if self.layer_decay is not None:
            raise ConfigError("optim.layer_decay belongs to classification recipes; leave it out")


@dataclass(frozen=True, kw_only=True)
class PolySpec:
    """lr x (1 - i / steps)^power at iteration i, and below it a linear warm-up as a ratio of that rate.

    power: of the decay.
    warmup_steps: iterations of the warm-up.
    warmup_ratio: the factor it starts from.
    Source: mmcv's poly policy with linear warm-up.
    """

    power: float = 1.0
    warmup_steps: int = 1500
    warmup_ratio: float = 1e-6

    def __post_init__(self) -> None:
        in_range("schedule.power", self.power, 0, math.inf)
        at_least("schedule.warmup_steps", self.warmup_steps, 0)
        in_range("schedule.warmup_ratio", self.warmup_ratio, 0, 1)

    def factor(self, step: int, steps: int) -> float:
        """Of the learning rate at iteration `step`, 0-based, of `steps`."""
        regular = max(0.0, 1 - step / steps) ** self.power
        if step >= self.warmup_steps:
            return regular
        return regular * (1 - (1 - step / self.warmup_steps) * (1 - self.warmup_ratio))


@dataclass(frozen=True, kw_only=True)
class SegmentationTrainerSpec:
    """How long, on what, and where the results go.

    steps: iterations, the warm-up included.
    val_every: iterations between validations; divides steps.
    devices: GPUs (or CPU processes) that train together, over all machines; with more or fewer, accumulate changes to
    keep the global batch, with a notice. torchrun and Slurm set it to the processes they start.
    batch_size: images per forward pass and device.
    accumulate: forward passes per iteration.
    batch_norm: statistics of several devices: "sync" (batches normalised over all devices), "reduce" (each its own,
    averaged before every validation), "frozen" (the checkpoint's, in training too) or "recalibrate" (computed before
    every validation).
    recalibrate_images: training images that "recalibrate" uses, over all devices; None: 4096.
    precision: "fp32", or "bf16" and "fp16" by autocast.
    compile: torch.compile the backbone for training.
    channels_last: memory format of network and images; on CUDA the network is what `van.optimize` makes of it.
    monitor: metric for best.ckpt and early stopping, "val/mIoU", "val/aAcc" or "val/mAcc".
    early_stopping: stop after so many validations without improvement; None: never.
    keep: which weights become model.safetensors, "best" or "last".
    seed: of weights, order, augmentation and dropout.
    deterministic: let torch use deterministic kernels only.
    device: "auto", "cpu", "cuda", "cuda:1" or "mps".
    workers: processes that read images, per device; None: by the machine, 0 for the digit scenes.
    threads: CPU threads; None: torch's choice.
    out: the run's folder; None: runs/NAME-DATE-TIME.
    resume: a run's folder, or its last.ckpt, to continue; "auto": the run in trainer.out, where there is one.
    resume_with_changed_data: continue even if files were added to the data set or removed since, with a notice; the
    run then no longer ends as if it had never been interrupted.
    checkpoint_every_steps, checkpoint_every_s: how often last.ckpt is written between validations, in iterations, and
    in seconds (15 minutes); None: not by this measure.
    log_every_steps: steps between entries of TensorBoard.
    progress: "auto" (a bar on a terminal), "bar", "lines" or "none".
    """

    steps: int = 160_000
    val_every: int = 8_000
    devices: int = 1
    batch_size: int = 2
    accumulate: int = 1
    batch_norm: str = "sync"
    recalibrate_images: int | None = None
    precision: str = "fp32"
    compile: bool = False
    channels_last: bool = False
    monitor: str = "val/mIoU"
    early_stopping: int | None = None
    keep: str = "best"
    seed: int = 0
    deterministic: bool = False
    device: str = "auto"
    workers: int | None = None
    threads: int | None = None
    out: str | None = None
    resume: str | None = None
    resume_with_changed_data: bool = False
    checkpoint_every_steps: int | None = None
    checkpoint_every_s: float | None = 900.0
    log_every_steps: int = 50
    progress: str = "auto"

    def __post_init__(self) -> None:
        for name in ("steps", "val_every", "batch_size", "accumulate", "early_stopping", "log_every_steps"):
            at_least(f"trainer.{name}", getattr(self, name), 1)
        check_processes(self)
        at_least("trainer.threads", self.threads, 1, MAX_PROCESSES)
        at_least("trainer.workers", self.workers, 0, MAX_PROCESSES)
        at_least("trainer.seed", self.seed, 0, MAX_SEED)
        one_of("trainer.precision", self.precision, PRECISIONS)
        one_of("trainer.monitor", self.monitor, MONITORS)
        one_of("trainer.keep", self.keep, ("best", "last"))
        one_of("trainer.progress", self.progress, ("auto", "bar", "lines", "none"))
        if self.steps % self.val_every:
            raise ConfigError(
                f"trainer.val_every is {self.val_every}, which does not divide trainer.steps, {self.steps}; the last "
                "iterations would go unvalidated"
            )


@dataclass(frozen=True, kw_only=True)
class SegmentationRecipe(Sectioned):
    """One segmentation run, entirely."""

    task: str = "segmentation"
    name: str = "custom"
    model: SegmentationModelSpec = field(default_factory=SegmentationModelSpec)
    data: SegmentationDataSpec = field(default_factory=SegmentationDataSpec)
    augment: SegmentationAugmentSpec = field(default_factory=SegmentationAugmentSpec)
    loss: LossSpec = field(default_factory=LossSpec)
    optim: SegmentationOptimSpec = field(default_factory=SegmentationOptimSpec)
    schedule: PolySpec = field(default_factory=PolySpec)
    trainer: SegmentationTrainerSpec = field(default_factory=SegmentationTrainerSpec)
    track: TrackSpec = field(default_factory=TrackSpec)

    def __post_init__(self) -> None:
        file_name(self.name)
        one_of("task", self.task, ("segmentation",))
        check_frozen(self)
        if self.schedule.warmup_steps >= self.trainer.steps:
            raise ConfigError(
                f"schedule.warmup_steps is {self.schedule.warmup_steps}, trainer.steps {self.trainer.steps}; a run "
                "cannot be all warm-up: use a shorter one, or 0"
            )

    @staticmethod
    def score_text(summary: Mapping[str, Any]) -> str:
        """The score in a run's summary: `mIoU 41.20%`; nan where no pixel had a label."""
        return f"mIoU {summary.get('val/mIoU', math.nan):.2%}"

    @property
    def global_batch(self) -> int:
        """Images per iteration, over all devices."""
        return self.trainer.devices * self.trainer.batch_size * self.trainer.accumulate

    @property
    def total_epochs(self) -> int:
        """Periods, each of which ends with a validation."""
        return self.trainer.steps // self.trainer.val_every
