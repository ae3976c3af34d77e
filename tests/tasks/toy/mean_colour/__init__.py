"""A whole task in one folder: guess the mean colour of an image. Nothing outside this folder knows of it.

`MEAN_COLOUR` is what `van.tasks.register` takes.
"""

from .config import MeanColourConfig
from .data import Colours
from .model import MeanColour
from .task import MEAN_COLOUR

__all__ = ["MEAN_COLOUR", "Colours", "MeanColour", "MeanColourConfig"]
