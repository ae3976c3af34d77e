"""Training by a recipe on pytorch-lightning: `run(recipe)` returns the folder with everything about the run."""

from ..errors import MissingExtraError

try:
    import pytorch_lightning  # noqa: F401
    import timm  # noqa: F401
    import torchdata  # noqa: F401
except ImportError as error:
    raise MissingExtraError.of("pytorch-lightning, timm and torchdata", "train", "for training") from error

from .run import run

__all__ = ["run"]
