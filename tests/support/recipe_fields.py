"""The fields of recipes, for tests that account for every one of them."""

# What no configuration of another code base could say: where data and results lie, how a run is watched and resumed.
MACHINE = {
    *("name", "task", "data.path", "data.index", "data.classes", "data.prefetch", "data.val_images"),
    *("model.reset_head", "model.keep_head", "model.grad_checkpointing"),
    *(f"data.{name}" for name in ("reader", "train_split", "val_split", "train_images", "image_key", "label_key")),
    *(f"data.{name}" for name in ("shuffle_buffer", "split_seed", "scene_size")),
    *(f"trainer.{name}" for name in ("device", "workers", "threads", "out", "resume", "progress", "log_every_steps")),
    *(f"trainer.{name}" for name in ("checkpoint_every_steps", "checkpoint_every_s", "deterministic", "compile")),
    *(f"trainer.{name}" for name in ("channels_last", "history", "max_unreadable", "eval_batch_size", "seed")),
    *(f"track.{name}" for name in ("tensorboard", "wandb", "wandb_offline", "mlflow", "mlflow_uri")),
}  # fmt: skip
OFF = (None, False, 0)  # an option that no original has, and that does nothing so


def flat(recipe):
    """Dotted field -> value."""
    values = {}
    for section in vars(recipe):
        group = getattr(recipe, section)
        values |= (
            {f"{section}.{key}": value for key, value in vars(group).items()}
            if hasattr(group, "__dict__")
            else {section: group}
        )
    return values
