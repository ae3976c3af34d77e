"""Where the figures of a run go: TensorBoard, Weights & Biases, MLflow, as the recipe says."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from ..errors import ConfigError, MissingExtraError
from ..recipes import BaseRecipe


def loggers(folder: Path, recipe: BaseRecipe) -> list[Logger] | bool:
    """Lightning's loggers of a recipe, with the recipe for those that keep settings; False for none.

    Raises MissingExtraError for packages that are missing, ConfigError when a tracker cannot be reached.
    """
    spec = recipe.track
    made: list[Logger] = []
    if spec.tensorboard:
        made.append(EventFiles(folder, name="", version="tensorboard", default_hp_metric=False))
    if spec.wandb is not None:
        made.append(_wandb(folder, recipe))
    if spec.mlflow is not None:
        made.append(_mlflow(folder, recipe))
    for logger in made[spec.tensorboard :]:
        logger.log_hyperparams(recipe.to_dict())
    return made or False


class EventFiles(TensorBoardLogger):
    """TensorBoard's files, of which no more are written once their folder has vanished: checkpoints come first."""

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        if self._is_there():
            super().log_metrics(metrics, step)

    def save(self) -> None:
        if self._is_there():
            super().save()

    def finalize(self, status: str) -> None:
        if self._is_there():
            super().finalize(status)

    def _is_there(self) -> bool:
        return self._experiment is None or Path(self.log_dir).is_dir()


def _wandb(folder: Path, recipe: BaseRecipe) -> Logger:
    _need("wandb")
    spec = recipe.track
    try:
        return WandbLogger(name=folder.name, project=spec.wandb, save_dir=str(folder), offline=spec.wandb_offline)
    except Exception as error:  # wandb has its own
        raise ConfigError(f"track.wandb {spec.wandb}: {error}; track.wandb_offline true writes files") from error


def _mlflow(folder: Path, recipe: BaseRecipe) -> Logger:
    _need("mlflow")
    spec = recipe.track
    uri = spec.mlflow_uri or f"sqlite:///{(folder / 'mlflow.db').resolve()}"
    try:
        logger = MLFlowLogger(spec.mlflow or "", run_name=folder.name, tracking_uri=uri)
        _ = logger.run_id  # a server that cannot be reached shows here
    except Exception as error:
        raise ConfigError(f"track.mlflow_uri {uri} cannot be used: {' '.join(str(error).split())}") from error
    return logger


def _need(package: str) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            __import__(package)
    except ImportError as error:
        raise MissingExtraError.of(package, "track", f"for track.{package}") from error
