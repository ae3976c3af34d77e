"""What published weights say about the two photographs that come with scikit-learn, on every engine."""

from __future__ import annotations

import copy
import functools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import MissingExtraError, VanError

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..inference.predictor import Predictor
    from ..models import Model

# "torch" is the network as it was loaded, which the others are compared with; "optimized" went through `van.optimize`.
EXPORTED = {"onnx": ".onnx", "openvino": ".xml"}
ENGINES = ("torch", "optimized", *EXPORTED, "keras")
SCORE_TOLERANCE = 2e-3  # between engines, of a score 0 … 1


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What an engine says about a photograph: the class that stands out, its number, its score 0 … 1.

    A classifier's score is the probability, a segmenter's the share of the pixels.
    """

    photograph: str
    engine: str
    label: str
    index: int
    score: float


@functools.cache
def photographs() -> tuple[tuple[str, Image], ...]:
    """(file name, image) of scikit-learn's two photographs; raises MissingExtraError without scikit-learn."""
    from PIL import Image

    try:
        from sklearn.datasets import load_sample_images
    except ImportError as error:
        raise MissingExtraError.of("scikit-learn", "export", "for the two photographs to run the weights on") from error
    found = load_sample_images()
    return tuple(
        (Path(name).name, Image.fromarray(pixels)) for name, pixels in zip(found.filenames, found.images, strict=True)
    )


def look(model: Model, path: Path, engines: Sequence[str]) -> tuple[tuple[Seen, ...], tuple[str, ...]]:
    """What the engines see on the photographs, and notes about those that cannot run the network here.

    path: the file that the model was loaded from, which Keras reads by itself.
    Raises VanError for an exported file that does not compute what the network does.
    """
    seen, notes = list[Seen](), list[str]()
    with tempfile.TemporaryDirectory() as folder:
        for engine in engines:
            try:
                seen += _look(engine, _predictor(model, path, engine, Path(folder)))
            except MissingExtraError as error:
                notes.append(f"{engine} was not run: {error}")
            except VanError as error:
                if engine != "keras":  # it has classifiers only
                    raise
                notes.append(f"{engine} was not run: {error}")
    return tuple(seen), tuple(notes)


def disagreements(seen: Sequence[Seen]) -> Iterator[str]:
    """Where an engine sees another class or score than the first one does, in words."""
    first: dict[str, Seen] = {}
    for one in seen:
        known = first.setdefault(one.photograph, one)
        if one.index != known.index or abs(one.score - known.score) > SCORE_TOLERANCE:
            yield f"{one.engine} sees {shown(one)} on {one.photograph}, {known.engine} {shown(known)}"


def shown(seen: Seen) -> str:
    """`285 (Egyptian cat) 0.8312`."""
    name = "" if seen.label == str(seen.index) else f" ({seen.label})"
    return f"{seen.index}{name} {seen.score:.4f}"


def _look(engine: str, predictor: Predictor) -> Iterator[Seen]:
    for name, image in photographs():
        if (found := predictor(image).leading()) is not None:
            label, index, score = found
            yield Seen(photograph=name, engine=engine, label=label, index=index, score=score)


def _predictor(model: Model, path: Path, engine: str, folder: Path) -> Predictor:
    from ..inference.predictor import Predictor
    from ..inference.session import open_session

    if engine == "torch":
        return Predictor(model, optimize=False)
    if engine == "optimized":
        return Predictor(copy.deepcopy(model), optimize=True)
    if engine == "keras":
        return Predictor(open_session(path, engine="keras"))
    from ..exporting import export

    exported = export(model, folder / f"network{EXPORTED[engine]}", images=[image for _, image in photographs()])
    return Predictor(exported.path)
