"""What a training run is, as data: frozen dataclasses of plain values, checked on construction, stdlib only.

data/ and train/ give the fields their meaning. Every field does something; a combination in which one could not
raises ConfigError.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from ..errors import ConfigError
from ..variants import ATTENTION_OPTIONS, resolve
from .checks import at_least, file_name, in_range, one_of, ordered
from .process_checks import check_frozen, check_processes
from .sections import Sectioned

PRECISIONS = ("fp32", "bf16", "fp16")
MONITORS = ("val/top1", "val/loss")
SCHEDULES = ("cosine", "poly", "constant")


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The network, and the weights it starts from.

    name: a variant of `van list`; None: the checkpoint's own, or van_b0 without a checkpoint.
    checkpoint: file, folder or hub id of any published format to start from; None: fresh weights.
    reset_head: start with a fresh head even if the checkpoint's fits the classes.
    grad_checkpointing: recompute blocks in the backward pass: less memory, more time.
    in_chans, drop_path_rate, drop_rate, head_drop_rate, frozen_stages, norm_eval, layer_norm_eps, layer_scale_init,
    attention, kernel_size, dilation, embed_dims, depths, mlp_ratios, patch_sizes, strides: as in VanConfig; None keeps
    what the variant or the checkpoint has.
    """

    name: str | None = None
    checkpoint: str | None = None
    reset_head: bool = False
    grad_checkpointing: bool = False
    in_chans: int | None = None
    drop_path_rate: float | None = None
    drop_rate: float | None = None
    head_drop_rate: float | None = None
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
            resolve(self.name)
        if self.attention is not None:
            one_of("model.attention", self.attention, ATTENTION_OPTIONS)
        if self.reset_head and self.checkpoint is None:
            raise ConfigError("model.reset_head needs model.checkpoint; a fresh network has a fresh head anyway")
        if self.layer_scale_init is not None and self.checkpoint is not None:
            raise ConfigError("model.layer_scale_init has no effect on a checkpoint's weights; leave one of them out")

    def options(self) -> dict[str, Any]:
        """The fields of VanConfig that are set."""
        own = ("name", "checkpoint", "reset_head", "grad_checkpointing")
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in own}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """The images, and how evaluation sees them.

    path: "digits", a folder with train/ and val/, or one folder of class folders; must be given.
    val_fraction, split_seed: of the split of a data set that has no val/ of its own (0.2 of every class, seed 0).
    size, crop_pct, interpolation, mean, std, resize: fields of the Preprocess record (size in pixels, one number for
    a square); None keeps the checkpoint's, or the official 224, 0.9, bicubic, 0.5, 0.5, shortest.
    """

    path: str | None = None
    val_fraction: float | None = None
    split_seed: int | None = None
    size: int | tuple[int, int] | None = None
    crop_pct: float | None = None
    interpolation: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize: str | None = None

    def __post_init__(self) -> None:
        if self.val_fraction is not None and not 0 < self.val_fraction < 1:
            raise ConfigError(
                f"data.val_fraction is {self.val_fraction}; expected a fraction between 0 and 1, e.g. 0.2"
            )

    def preprocess_overrides(self) -> dict[str, Any]:
        """The fields of Preprocess; None where nothing was said."""
        names = ("size", "crop_pct", "interpolation", "mean", "std", "resize")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True)
class AugmentSpec:
    """What training does to images and labels; a zero or None switches a step off.

    crop_scale: random-resized crop of this share of the area (timm's); None: the whole image as in evaluation.
    crop_ratio, crop_interpolation: of that crop (3/4 … 4/3, "random").
    rotate_degrees: turn by up to this angle either way.
    shift: move by up to this share of the side.
    zoom: range of a scale factor, e.g. 0.9 to 1.1.
    hflip, vflip: probability of a mirror image.
    auto_augment: policy in timm's notation, e.g. "rand-m9-mstd0.5-inc1".
    color_jitter: strength of brightness, contrast and saturation changes; acts beside a policy too.
    erasing: probability of erasing rectangles.
    erasing_mode, erasing_count: what fills them ("const", "rand", "pixel"), and how many.
    mixup, cutmix: alpha of each.
    mix_prob: share of batches that are mixed.
    switch_prob: share of CutMix among them when both are on.
    label_smoothing: share of the target given to all classes alike.
    """

    crop_scale: tuple[float, float] | None = (0.08, 1.0)
    crop_ratio: tuple[float, float] | None = None
    crop_interpolation: str | None = None
    rotate_degrees: float = 0.0
    shift: float = 0.0
    zoom: tuple[float, float] | None = None
    hflip: float = 0.5
    vflip: float = 0.0
    auto_augment: str | None = None
    color_jitter: float = 0.0
    erasing: float = 0.0
    erasing_mode: str = "pixel"
    erasing_count: int = 1
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_prob: float = 1.0
    switch_prob: float = 0.5
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        for name in ("hflip", "vflip", "erasing", "mix_prob", "switch_prob"):
            in_range(f"augment.{name}", getattr(self, name), 0, 1)
        for name in ("mixup", "cutmix", "color_jitter", "rotate_degrees"):
            in_range(f"augment.{name}", getattr(self, name), 0, math.inf)
        for name in ("label_smoothing", "shift"):
            in_range(f"augment.{name}", getattr(self, name), 0, 0.999)
        for name in ("crop_scale", "crop_ratio", "zoom"):
            ordered(f"augment.{name}", getattr(self, name))
        if self.crop_scale is None and (self.crop_ratio is not None or self.crop_interpolation is not None):
            raise ConfigError("augment.crop_ratio and crop_interpolation belong to the random crop; set crop_scale too")
        one_of("augment.erasing_mode", self.erasing_mode, ("const", "rand", "pixel"))
        if self.crop_interpolation is not None:
            one_of("augment.crop_interpolation", self.crop_interpolation, ("random", "bilinear", "bicubic"))
        at_least("augment.erasing_count", self.erasing_count, 1)

    @property
    def mixes(self) -> bool:
        """Whether images of a batch are mixed, which makes targets soft."""
        return self.mix_prob > 0 and (self.mixup > 0 or self.cutmix > 0)


@dataclass(frozen=True, kw_only=True)
class OptimSpec:
    """The optimizer, by timm's names; no weight decay on biases and other 1-d parameters.

    name: of timm.optim.list_optimizers().
    lr: at a global batch of lr_batch images; for another global batch (batch_size x accumulate) it is scaled
    linearly, which is said.
    lr_batch: the batch that lr is meant for; None: lr is used as it is.
    weight_decay: of all parameters with more than one dimension.
    betas, eps, momentum: None keeps the optimizer's own; one that the optimizer does not have raises ConfigError.
    clip_norm: largest norm of the gradient; None: not clipped.
    """

    name: str = "adamw"
    lr: float = 1e-3
    lr_batch: int | None = None
    weight_decay: float = 0.05
    betas: tuple[float, ...] | None = None
    eps: float | None = None
    momentum: float | None = None
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        in_range("optim.lr", self.lr, 0, math.inf)
        in_range("optim.weight_decay", self.weight_decay, 0, math.inf)
        if self.lr_batch is not None:
            at_least("optim.lr_batch", self.lr_batch, 1)
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ConfigError(f"optim.clip_norm is {self.clip_norm}; expected a positive norm, or null for none")

    def scaled_lr(self, global_batch: int) -> float:
        """The learning rate at `global_batch` images per step."""
        return self.lr if self.lr_batch is None else self.lr * global_batch / self.lr_batch


@dataclass(frozen=True, kw_only=True)
class ScheduleSpec:
    """The learning rate over time, by timm's schedulers.

    name: "cosine", "poly" or "constant".
    warmup_epochs: linear from warmup_lr; counted in trainer.epochs.
    warmup_lr: where the warm-up starts.
    min_lr: at the end of the decay.
    cooldown_epochs: further epochs at min_lr, after trainer.epochs.
    power: of the poly schedule.
    per: "step" sets the rate for every step, "epoch" once per epoch (as the published script).
    """

    name: str = "cosine"
    warmup_epochs: float = 0.0
    warmup_lr: float = 1e-6
    min_lr: float = 1e-6
    cooldown_epochs: int = 0
    power: float | None = None
    per: str = "step"

    def __post_init__(self) -> None:
        one_of("schedule.name", self.name, SCHEDULES)
        one_of("schedule.per", self.per, ("step", "epoch"))
        for name in ("warmup_epochs", "warmup_lr", "min_lr", "cooldown_epochs"):
            in_range(f"schedule.{name}", getattr(self, name), 0, math.inf)
        if (self.power is not None) != (self.name == "poly"):
            raise ConfigError("schedule.power belongs to the poly schedule: give it there (e.g. 1.0) and only there")
        if self.per == "epoch" and self.warmup_epochs != int(self.warmup_epochs):
            raise ConfigError(
                f"schedule.warmup_epochs is {self.warmup_epochs}; a schedule per epoch needs whole epochs"
            )


@dataclass(frozen=True, kw_only=True)
class TrainerSpec:
    """How long, on what, and where the results go.

    epochs: passes over the training images, the warm-up included.
    devices: GPUs (or CPU processes) that train together, over all machines; with more or fewer, accumulate changes to
    keep the global batch where it can, which is said. torchrun and Slurm set it to the processes they start.
    batch_size: images per forward pass and device.
    accumulate: forward passes per optimizer step.
    eval_batch_size: images per validation pass; None: batch_size.
    batch_norm: statistics of several devices: "reduce" (each its own, averaged before every validation), "sync"
    (batches normalised over all devices), "frozen" (the checkpoint's, in training too) or "recalibrate" (taken anew
    before every validation).
    recalibrate_images: training images that "recalibrate" looks at, over all devices; None: 4096.
    precision: "fp32", or "bf16" and "fp16" by autocast.
    compile: torch.compile the network for training.
    channels_last: memory format of network and images.
    ema_decay: of an average of the weights, which is then what is validated and exported; None: no average. The decay
    grows from 0 towards this value, so that short runs have a useful average too.
    monitor: metric for best.ckpt and early stopping, "val/top1" or "val/loss".
    early_stopping: stop after so many epochs without improvement; None: never.
    keep: which weights become model.safetensors, "best" or "last".
    seed: of weights, order, augmentation and dropout.
    deterministic: let torch use deterministic kernels only.
    device: "auto", "cpu", "cuda", "cuda:1" or "mps".
    workers: processes that read images, per device; None: by the machine, 0 for the digits.
    max_unreadable: training images that may turn out unreadable, per device; others stand in for them, which is said.
    threads: CPU threads; None: torch's choice.
    out: the run's folder; None: runs/NAME-DATE-TIME.
    resume: a run's folder, or its last.ckpt, to continue; "auto": the run in trainer.out, where there is one.
    checkpoint_every_steps, checkpoint_every_s: how often last.ckpt is written between epochs, in optimizer steps, and
    in seconds (15 minutes); None: not by this measure.
    log_every_steps: steps between entries of TensorBoard.
    progress: "auto" (a bar on a terminal), "bar", "lines" or "none".
    """

    epochs: int = 100
    devices: int = 1
    batch_size: int = 64
    accumulate: int = 1
    eval_batch_size: int | None = None
    batch_norm: str = "reduce"
    recalibrate_images: int | None = None
    precision: str = "fp32"
    compile: bool = False
    channels_last: bool = False
    ema_decay: float | None = None
    monitor: str = "val/top1"
    early_stopping: int | None = None
    keep: str = "best"
    seed: int = 0
    deterministic: bool = False
    device: str = "auto"
    workers: int | None = None
    max_unreadable: int = 10
    threads: int | None = None
    out: str | None = None
    resume: str | None = None
    checkpoint_every_steps: int | None = None
    checkpoint_every_s: float | None = 900.0
    log_every_steps: int = 50
    progress: str = "auto"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate", "eval_batch_size", "early_stopping", "log_every_steps"):
            at_least(f"trainer.{name}", getattr(self, name), 1)
        check_processes(self)
        at_least("trainer.max_unreadable", self.max_unreadable, 0)
        at_least("trainer.threads", self.threads, 1)
        at_least("trainer.workers", self.workers, 0)
        at_least("trainer.seed", self.seed, 0)
        one_of("trainer.precision", self.precision, PRECISIONS)
        one_of("trainer.monitor", self.monitor, MONITORS)
        one_of("trainer.keep", self.keep, ("best", "last"))
        one_of("trainer.progress", self.progress, ("auto", "bar", "lines", "none"))
        if self.ema_decay is not None:
            in_range("trainer.ema_decay", self.ema_decay, 0, 0.9999999)


@dataclass(frozen=True, kw_only=True)
class Recipe(Sectioned):
    """One training run, entirely."""

    name: str = "custom"
    model: ModelSpec = field(default_factory=ModelSpec)
    data: DataSpec = field(default_factory=DataSpec)
    augment: AugmentSpec = field(default_factory=AugmentSpec)
    optim: OptimSpec = field(default_factory=OptimSpec)
    schedule: ScheduleSpec = field(default_factory=ScheduleSpec)
    trainer: TrainerSpec = field(default_factory=TrainerSpec)

    def __post_init__(self) -> None:
        file_name(self.name)
        check_frozen(self)
        if self.augment.mixes and self.trainer.batch_size % 2:
            raise ConfigError(
                f"trainer.batch_size is {self.trainer.batch_size}; Mixup and CutMix pair images: use an even number"
            )

    @property
    def global_batch(self) -> int:
        """Images per optimizer step, over all devices."""
        return self.trainer.devices * self.trainer.batch_size * self.trainer.accumulate

    @property
    def total_epochs(self) -> int:
        """Epochs of the schedule and its cool-down."""
        return self.trainer.epochs + self.schedule.cooldown_epochs


SECTIONS: dict[str, type] = Recipe.sections()
