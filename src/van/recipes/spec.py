"""What a training run is, as data: frozen dataclasses of plain values, checked on construction, stdlib only.

data/ and train/ give the fields their meaning. Every field does something; a combination in which one could not
raises ConfigError.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ..configs.backbone import ATTENTION_OPTIONS, resolve
from ..errors import ConfigError
from .augment_spec import AugmentSpec
from .checks import at_least, check_head, file_name, in_range, no_detector, one_of
from .cross_checks import check_together
from .data_spec import DataSpec
from .loss_spec import CriterionSpec
from .optim_spec import OptimSpec, ScheduleSpec
from .process_checks import MAX_PROCESSES, MAX_SEED, check_frozen, check_processes
from .sections import Sectioned
from .track_spec import TrackSpec

PRECISIONS = ("fp32", "bf16", "fp16")
MONITORS = ("val/top1", "val/top5", "val/loss", "val/macro_f1", "val/macro_precision", "val/macro_recall")

# Far beyond every network; larger ones would fill the memory before any check.
_LARGEST = {
    "in_chans": 10_000, "embed_dims": 100_000, "depths": 1000, "mlp_ratios": 1000, "patch_sizes": 1000, "strides": 1000,
    "kernel_size": 1000, "dilation": 1000,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The network, and the weights it starts from.

    name: a variant of `van list`; None: the checkpoint's own, or van_b0 without a checkpoint.
    checkpoint: file, folder or hub id of any published format to start from; None: fresh weights.
    reset_head: start with a fresh head even if the checkpoint's fits the classes.
    keep_head: the checkpoint's head whatever its classes are called, in the order of the data's; without it the head
    stays where both name the same classes: letter case, blanks, "-" and "_" apart, in any order.
    grad_checkpointing: recompute blocks in the backward pass: less memory, more time.
    in_chans, drop_path_rate, drop_rate, head_drop_rate, frozen_stages, norm_eval, layer_norm_eps, layer_scale_init,
    attention, kernel_size, dilation, embed_dims, depths, mlp_ratios, patch_sizes, strides: as in VanConfig; None keeps
    what the variant or the checkpoint has.
    """

    name: str | None = None
    checkpoint: str | None = None
    reset_head: bool = False
    keep_head: bool = False
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
            no_detector(self.name)
            resolve(self.name)
        if self.attention is not None:
            one_of("model.attention", self.attention, ATTENTION_OPTIONS)
        for name, high in _LARGEST.items():
            value = getattr(self, name)
            for number in value if isinstance(value, tuple) else (value,) if value is not None else ():
                in_range(f"model.{name}", number, 0, high)
        check_head(self)
        if self.layer_scale_init is not None and self.checkpoint is not None:
            raise ConfigError("model.layer_scale_init has no effect on a checkpoint's weights; leave one of them out")

    def options(self) -> dict[str, Any]:
        """The fields of VanConfig that are set."""
        own = ("name", "checkpoint", "reset_head", "keep_head", "grad_checkpointing")
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in own}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class TrainerSpec:
    """How long, on what, and where the results go.

    epochs: passes over the training images, the warm-up included.
    devices: GPUs (or CPU processes) that train together, over all machines; with more or fewer, accumulate changes to
    keep the global batch where it can, with a notice. torchrun and Slurm set it to the processes they start.
    batch_size: images per forward pass and device.
    accumulate: forward passes per optimizer step.
    eval_batch_size: images per validation pass; None: batch_size.
    batch_norm: statistics of several devices: "reduce" (each its own, averaged before every validation), "sync"
    (batches normalised over all devices), "frozen" (the checkpoint's, in training too) or "recalibrate" (computed
    before every validation).
    recalibrate_images: training images that "recalibrate" uses, over all devices; None: 4096.
    precision: "fp32", or "bf16" and "fp16" by autocast.
    compile: torch.compile the network for training.
    channels_last: memory format of network and images; on CUDA the network is what `van.optimize` makes of it.
    ema_decay: of an average of the weights, which is then what is validated and exported; None: no average. The decay
    grows from 0 towards this value, so that short runs have a useful average too.
    monitor: metric for best.ckpt and early stopping: "val/top1", "val/top5", "val/loss", or the mean over classes
    "val/macro_f1", "val/macro_precision" or "val/macro_recall".
    early_stopping: stop after so many epochs without improvement; None: never.
    keep: which weights become model.safetensors, "best" or "last".
    history: so many of the best checkpoints stay in history/; None: best.ckpt alone.
    seed: of weights, order, augmentation and dropout.
    deterministic: let torch use deterministic kernels only.
    device: "auto", "cpu", "cuda", "cuda:1" or "mps".
    workers: processes that read images, per device; None: by the machine, 0 for the digits.
    max_unreadable: training images that may turn out unreadable, per device; others replace them, with a notice.
    None: 10. Streams have readers of their own, which skip such images and log it.
    threads: CPU threads; None: torch's choice.
    out: the run's folder; None: runs/NAME-DATE-TIME.
    resume: a run's folder, or its last.ckpt, to continue; "auto": the run in trainer.out, where there is one.
    resume_with_changed_data: continue even if files were added to the data set or removed since, with a notice; the
    run then no longer ends as if it had never been interrupted.
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
    history: int | None = None
    seed: int = 0
    deterministic: bool = False
    device: str = "auto"
    workers: int | None = None
    max_unreadable: int | None = None
    threads: int | None = None
    out: str | None = None
    resume: str | None = None
    resume_with_changed_data: bool = False
    checkpoint_every_steps: int | None = None
    checkpoint_every_s: float | None = 900.0
    log_every_steps: int = 50
    progress: str = "auto"

    def __post_init__(self) -> None:
        for name in (
            "epochs",
            "batch_size",
            "accumulate",
            "eval_batch_size",
            "early_stopping",
            "history",
            "log_every_steps",
        ):
            at_least(f"trainer.{name}", getattr(self, name), 1)
        check_processes(self)
        at_least("trainer.max_unreadable", self.max_unreadable, 0)
        at_least("trainer.threads", self.threads, 1, MAX_PROCESSES)
        at_least("trainer.workers", self.workers, 0, MAX_PROCESSES)
        at_least("trainer.seed", self.seed, 0, MAX_SEED)
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
    loss: CriterionSpec = field(default_factory=CriterionSpec)
    optim: OptimSpec = field(default_factory=OptimSpec)
    schedule: ScheduleSpec = field(default_factory=ScheduleSpec)
    trainer: TrainerSpec = field(default_factory=TrainerSpec)
    track: TrackSpec = field(default_factory=TrackSpec)

    def __post_init__(self) -> None:
        file_name(self.name)
        check_frozen(self)
        self._check_length()
        check_together(self)

    def _check_length(self) -> None:
        try:
            epochs: float = self.total_epochs
        except OverflowError:
            epochs = math.inf
        if epochs > 10**9:
            raise ConfigError("trainer.epochs, schedule.cycles and cycle_mul make more than a thousand million epochs")

    @staticmethod
    def score_text(summary: Mapping[str, Any]) -> str:
        """The score in a run's summary: `top-1 97.50%`."""
        return f"top-1 {summary['val/top1']:.2f}%"

    @property
    def global_batch(self) -> int:
        """Images per optimizer step, over all devices."""
        return self.trainer.devices * self.trainer.batch_size * self.trainer.accumulate

    @property
    def total_epochs(self) -> int:
        """Epochs of the schedule, all its cycles, and its cool-down."""
        return self.schedule.epochs(self.trainer.epochs)


SECTIONS: dict[str, type] = Recipe.sections()
