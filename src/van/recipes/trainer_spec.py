"""How long, on what and where to, as data: what every task's section has, for runs counted in epochs or in steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..errors import ConfigError
from .checks import at_least, in_range, one_of
from .process_checks import MAX_PROCESSES, MAX_SEED, check_processes

PRECISIONS = ("fp32", "bf16", "fp16")


@dataclass(frozen=True, kw_only=True)
class BaseTrainerSpec:
    """How long, on what, and where the results go.

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
    early_stopping: stop after so many epochs without improvement; None: never.
    keep: which weights become model.safetensors, "best" or "last".
    history: so many of the best checkpoints stay in history/; None: best.ckpt alone.
    seed: of weights, order, augmentation and dropout.
    deterministic: let torch use deterministic kernels only.
    device: "auto", "cpu", "cuda", "cuda:1" or "mps".
    workers: processes that read images, per device; None: by the machine, 0 for the embedded data.
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

    # scores that best.ckpt and early stopping may go by
    MONITORS: ClassVar[tuple[str, ...]] = ("val/loss",)

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
    monitor: str = "val/loss"
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
        for name in ("batch_size", "accumulate", "eval_batch_size", "early_stopping", "history", "log_every_steps"):
            at_least(f"trainer.{name}", getattr(self, name), 1)
        check_processes(self)
        at_least("trainer.max_unreadable", self.max_unreadable, 0)
        at_least("trainer.threads", self.threads, 1, MAX_PROCESSES)
        at_least("trainer.workers", self.workers, 0, MAX_PROCESSES)
        at_least("trainer.seed", self.seed, 0, MAX_SEED)
        one_of("trainer.precision", self.precision, PRECISIONS)
        one_of("trainer.monitor", self.monitor, self.MONITORS)
        one_of("trainer.keep", self.keep, ("best", "last"))
        one_of("trainer.progress", self.progress, ("auto", "bar", "lines", "none"))
        if self.ema_decay is not None:
            in_range("trainer.ema_decay", self.ema_decay, 0, 0.9999999)


@dataclass(frozen=True, kw_only=True)
class _Epochs:
    """A length in epochs; a class of its own so that the length comes first among a trainer's settings."""

    epochs: int = 100


@dataclass(frozen=True, kw_only=True)
class EpochTrainerSpec(BaseTrainerSpec, _Epochs):
    """How long, on what, and where the results go.

    epochs: passes over the training images, the warm-up included.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("trainer.epochs", self.epochs, 1)


@dataclass(frozen=True, kw_only=True)
class _Steps:
    """A length in steps; a class of its own so that the length comes first among a trainer's settings."""

    steps: int = 160_000
    val_every: int = 8_000


@dataclass(frozen=True, kw_only=True)
class StepTrainerSpec(BaseTrainerSpec, _Steps):
    """How long, on what, and where the results go; an epoch of a run counted in steps is `val_every` of them.

    steps: iterations, the warm-up included.
    val_every: iterations between validations; divides steps.
    accumulate: forward passes per iteration.
    early_stopping: stop after so many validations without improvement; None: never.
    checkpoint_every_steps, checkpoint_every_s: how often last.ckpt is written between validations, in iterations, and
    in seconds (15 minutes); None: not by this measure.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("steps", "val_every"):
            at_least(f"trainer.{name}", getattr(self, name), 1)
        if self.steps % self.val_every:
            raise ConfigError(
                f"trainer.val_every is {self.val_every}, which does not divide trainer.steps, {self.steps}; the last "
                "iterations would go unvalidated"
            )
