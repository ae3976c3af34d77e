"""Where a run's figures go besides its own files, as data."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TrackSpec:
    """Trackers of losses, rates and scores; metrics.csv and summary.json are always written.

    tensorboard: event files in the run's folder.
    wandb: project at Weights & Biases; None: not used. wandb_offline: write into the run's folder, for `wandb sync`.
    mlflow: experiment at MLflow; None: not used.
    mlflow_uri: where MLflow keeps it: a server, or "file:FOLDER"; None: the run's folder.
    """

    tensorboard: bool = True
    wandb: str | None = None
    wandb_offline: bool = False
    mlflow: str | None = None
    mlflow_uri: str | None = None

    def __post_init__(self) -> None:
        if self.wandb_offline and self.wandb is None:
            raise ConfigError("track.wandb_offline needs track.wandb, the project's name")
        if self.mlflow_uri is not None and self.mlflow is None:
            raise ConfigError("track.mlflow_uri needs track.mlflow, the experiment's name")
