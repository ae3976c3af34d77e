"""The quickstart: the embedded digits, no download."""

from __future__ import annotations

from ..optim_spec import OptimSpec
from ..schedule_spec import ScheduleSpec
from .augment_spec import AugmentSpec
from .data_spec import DataSpec
from .spec import ModelSpec, Recipe, TrainerSpec


def digits_van_b0() -> Recipe:
    """VAN-B0 at 32² on scikit-learn's 1,797 handwritten digits: the whole chain in two minutes of CPU.

    Command: van train digits_van_b0
    Hardware: two CPU cores. Time: about 70 s on two AVX-512 cores, evaluation and picture included; 220 steps.
    Expected: 98.9% top-1 on the 359 held-out digits (seed 0; other seeds and nearby lengths 98.3 … 99.4%).
    Published: nothing of it. Ours: everything; digits are shifted, turned and zoomed a little, never mirrored.
    """
    return Recipe(
        name="digits_van_b0",
        model=ModelSpec(name="van_b0"),
        data=DataSpec(path="digits", size=32, crop_pct=1.0, interpolation="bilinear"),
        augment=AugmentSpec(crop_scale=None, hflip=0.0, rotate_degrees=10.0, shift=0.1, zoom=(0.9, 1.1)),
        optim=OptimSpec(lr=2e-3, weight_decay=0.05, clip_norm=5.0),
        schedule=ScheduleSpec(warmup_epochs=1.0, min_lr=1e-5),
        trainer=TrainerSpec(
            epochs=10, batch_size=64, channels_last=True, workers=0, keep="last", device="cpu", log_every_steps=5
        ),
    )
