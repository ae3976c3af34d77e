"""Your own images, from any checkpoint."""

from __future__ import annotations

from .spec import AugmentSpec, ModelSpec, OptimSpec, Recipe, ScheduleSpec, TrainerSpec


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
