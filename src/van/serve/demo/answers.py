"""What a model makes of an uploaded file: result, explanation, and how long each took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from ...errors import DataError, VanError
from ...images.preprocess import image_size, read_image, to_color
from ...inference.predictor import Failure
from ...tasks.base import Output
from ...tools.explain import Explanation
from .models import DemoModel


@dataclass(frozen=True)
class Limits:
    """Of an upload. max_bytes: of the file; max_pixels: of the image, by its header."""

    max_bytes: int = 32 * 2**20
    max_pixels: int = 50_000_000


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model made of an image.

    output: None where the model could make nothing of it, `failure` says why. prepare_ms, network_ms: of reading and
    preparing, and of running the network. explanation: None as long as there is none, and where `unexplained` says why
    there cannot be one.
    """

    model: DemoModel
    image: Image.Image
    output: Output | None = None
    failure: str = ""
    prepare_ms: float = 0.0
    network_ms: float = 0.0
    explanation: Explanation | None = None
    explain_ms: float = 0.0
    unexplained: str = ""


def read_upload(path: str | Path, name: str, limits: Limits, *, exif: bool = True) -> Image.Image:
    """The image of an uploaded file, RGB; name: what the user calls it. Raises DataError where it cannot be used."""
    path = Path(path)
    if path.stat().st_size > limits.max_bytes:
        raise DataError(f"{name} has {path.stat().st_size:,} bytes; expected at most {limits.max_bytes:,}")
    width, height = image_size(path)
    if width * height > limits.max_pixels:
        raise DataError(f"{name} has {width:,} x {height:,} pixels; expected at most {limits.max_pixels:,} in all")
    try:
        return to_color(read_image(path, exif=exif), "RGB")
    except DataError as error:
        raise DataError(str(error).replace(str(path), name)) from error


def answers(models: list[DemoModel], image: Image.Image) -> Iterator[list[Answer]]:
    """The answers of some models, more complete each time: first all results, then one explanation after the other."""
    found = [_result(model, image) for model in models]
    yield list(found)
    for place, answer in enumerate(found):
        if answer.output is not None:
            found[place] = _explained(answer)
            yield list(found)


def _result(model: DemoModel, image: Image.Image) -> Answer:
    began = time.perf_counter()
    prepared = model.predictor.prepare(image)
    ready = time.perf_counter()
    [output] = model.predictor.run([prepared])
    done = time.perf_counter()
    answer = Answer(model=model, image=image, prepare_ms=1e3 * (ready - began), network_ms=1e3 * (done - ready))
    if isinstance(output, Failure):
        return replace(answer, failure=output.reason)
    return replace(answer, output=output)


def _explained(answer: Answer) -> Answer:
    if answer.model.explainer is None:
        return replace(answer, unexplained=answer.model.unexplained)
    began = time.perf_counter()
    try:
        explanation = answer.model.explainer(answer.image)
    except VanError as error:
        return replace(answer, unexplained=str(error))
    return replace(answer, explanation=explanation, explain_ms=1e3 * (time.perf_counter() - began))
