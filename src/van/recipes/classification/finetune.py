"""Your own images, from any checkpoint."""

from __future__ import annotations

from dataclasses import replace

from ..optim_spec import OptimSpec
from ..schedule_spec import ScheduleSpec
from .augment_spec import AugmentSpec
from .spec import ModelSpec, Recipe, TrainerSpec


def finetune() -> Recipe:
    """Fine-tune any checkpoint on a folder of your own images: settings for hundreds to some ten thousand of them.

    Command: van train finetune --model.checkpoint van_tiny_754.pth.tar --data.path FOLDER
    Hardware: any; a GPU for more than a few hundred images at 224². Time: by your data. Expected: by your data.
    Published: nothing of it. Ours: everything; a fiftieth to a tenth of the published learning rate, milder crops than
    ImageNet's, an average of the weights, the best epoch kept. Size, mean and std are the checkpoint's.
    Without --model.checkpoint it trains from scratch; give it more --trainer.epochs and --optim.lr 1e-3 then.
    """
    return Recipe(
        name="finetune",
        model=ModelSpec(drop_path_rate=0.1),
        augment=AugmentSpec(
            crop_scale=(0.3, 1.0), auto_augment="rand-m6-mstd0.5-inc1", erasing=0.1, label_smoothing=0.1
        ),
        optim=OptimSpec(name="adamw", lr=1e-4, lr_batch=32, weight_decay=0.05, clip_norm=5.0),
        schedule=ScheduleSpec(name="cosine", warmup_epochs=2.0, warmup_lr=1e-6, min_lr=1e-6),
        trainer=TrainerSpec(epochs=30, batch_size=32, ema_decay=0.999, keep="best", log_every_steps=10),
    )


def finetune_few() -> Recipe:
    """Fine-tune any checkpoint on a few dozen images a class: early layers learn little, statistics stay.

    Command: van train finetune_few --model.checkpoint van_tiny_754.pth.tar --data.path FOLDER
    Hardware: any. Time: minutes on a GPU. Expected: by your data.
    Published: nothing of it. Ours: everything; every earlier layer learns at 0.8 of the next one's rate, the first
    stage not at all, BatchNorm keeps the checkpoint's statistics (a few images would spoil them), every image comes
    twice in a row, and the average of the weights is what is kept.
    """
    base = finetune()
    return replace(
        base,
        name="finetune_few",
        model=replace(base.model, frozen_stages=0, norm_eval=True),
        augment=replace(base.augment, repeats=2, crop_scale=(0.4, 1.0)),
        optim=replace(base.optim, lr=2e-4, layer_decay=0.8),
        schedule=replace(base.schedule, warmup_epochs=5.0),
        trainer=replace(base.trainer, epochs=60, ema_decay=0.99),
    )


def finetune_head() -> Recipe:
    """Train a new head alone on top of any checkpoint: the quickest look at your data, and hard to spoil.

    Command: van train finetune_head --model.checkpoint van_tiny_754.pth.tar --data.path FOLDER
    Hardware: any, also a CPU. Time: minutes. Expected: by your data; below `finetune` where there are enough images.
    Published: nothing of it. Ours: everything; the backbone is frozen, statistics included, no mixing, mild crops.
    """
    base = finetune()
    return replace(
        base,
        name="finetune_head",
        model=ModelSpec(frozen_stages=3, norm_eval=True, drop_path_rate=0.0),
        augment=AugmentSpec(crop_scale=(0.5, 1.0), label_smoothing=0.1),
        optim=replace(base.optim, lr=3e-3, weight_decay=1e-4),
        schedule=replace(base.schedule, warmup_epochs=1.0),
        trainer=replace(base.trainer, epochs=15, ema_decay=None),
    )
