"""Whether the published weights are what the table says: download, hash, strict load, an expected label."""

from __future__ import annotations

import functools
import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..checkpoints import hub
from ..configs.backbone import VARIANTS
from ..configs.published_weights import Weight
from ..errors import CheckpointError, MissingExtraError, VanError, VanNotice
from ..files import cache_folder
from ..images.preprocess import IMAGENET, Preprocess, read_image

if TYPE_CHECKING:
    from ..models import Model

# Two cats on a sofa, the image that transformers' integration test of van-base uses.
CATS_URL = "http://images.cocodataset.org/val2017/000000039769.jpg"
# ImageNet-1K's tabby, tiger cat, Persian, Siamese and Egyptian cat.
CAT_CLASSES = frozenset(range(281, 286))
# The first logits that transformers' test asserts on that image, prepared as the repository's processor file says
# (facts of 2022: ImageNet's mean and std, crop 0.875), not as the weights were trained.
CATS_LOGITS = {"hub/van_b2": (0.1029, -0.0904, -0.6365)}
# Data sets whose classes the right answer is one of.
ANSWERED = ("in1k", "in21k")
LOGITS_TOLERANCE = 1e-3  # image libraries of other versions decode and resize a little differently

Fetch = Callable[[Weight, "Path | None"], Path]


@dataclass(frozen=True, kw_only=True)
class Check:
    """What became of one weight: status "ok", "failed" or "skipped", and why.

    sha256: of the downloaded file; None when there is none. notes: what loading it had to decide.
    """

    weight: Weight
    status: str
    detail: str
    sha256: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Question:
    """The image that every classifier is asked, and the answer that is right.

    picture: returns its path when it is needed. expect: a class index or a part of a class name; "" accepts any
    answer; None means the cats, whose answers are known.
    """

    picture: Callable[[], Path]
    expect: str | None = None


def verify(
    rows: Iterable[Weight],
    *,
    image: str | Path | None = None,
    expect: str | None = None,
    cache: str | Path | None = None,
    fetch: Fetch | None = None,
) -> Iterator[Check]:
    """One Check per row, as soon as it is done (network, unless everything is in the cache).

    image: a file to classify instead of the two cats; expect: its class index, or a part of its class name.
    cache: folder for downloads. fetch: (row, cache) -> local path, for another way to get the files.
    """
    cache = Path(cache) if cache is not None else None

    @functools.cache
    def picture() -> Path:
        return (
            Path(image)
            if image is not None
            else hub.fetch_url(CATS_URL, (cache or cache_folder()) / Path(CATS_URL).name)
        )

    question = Question(picture, expect if image is None or expect is not None else "")
    for row in rows:
        yield _check(row, question, cache, fetch or fetch_weight)


def fetch_weight(row: Weight, cache: Path | None) -> Path:
    """The row's file, or folder of transformers' layout, downloaded unless it is in the cache."""
    if row.repo is not None:
        return hub.download(row.repo, cache=cache)
    if row.url is None:
        raise CheckpointError(f"{row.name} has no link")
    return hub.fetch_url(row.url, hub.place_of(row, cache))


def _check(row: Weight, question: Question, cache: Path | None, fetch: Fetch) -> Check:
    if reason := _reason_to_skip(row):
        return Check(weight=row, status="skipped", detail=reason)
    digits: str | None = None
    try:
        path = fetch(row, cache)
        digits = _sha256(_weight_file(path))
        if row.sha256 and not digits.startswith(row.sha256):
            raise CheckpointError(f"sha256 is {digits}, expected {row.sha256}…; delete {path} and try again")
        with warnings.catch_warnings(record=True) as notices:
            warnings.simplefilter("always", VanNotice)
            detail = _load_and_classify(row, path, question)
    except MissingExtraError as error:
        return Check(weight=row, status="skipped", detail=str(error), sha256=digits)
    except Exception as error:  # whatever a file from elsewhere brings about, the other rows are still to be checked
        reason = str(error) if isinstance(error, VanError) else f"{type(error).__name__}: {error}"
        return Check(weight=row, status="failed", detail=" ".join(reason.split()), sha256=digits)
    notes = tuple(str(one.message) for one in notices if issubclass(one.category, VanNotice))
    return Check(weight=row, status="ok", detail=detail, sha256=digits, notes=notes)


def _reason_to_skip(row: Weight) -> str | None:
    if row.kind == "unlinked":
        return "no link was published"
    if row.kind == "google-drive":
        return f"needs a browser: {row.url}"
    return None


def _weight_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    return next(path / name for name in hub.TRANSFORMERS_WEIGHTS if (path / name).is_file())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _load_and_classify(row: Weight, path: Path, question: Question) -> str:
    """Load strictly, compare with the row, classify the image; returns the result in words, raises CheckpointError."""
    from ..inference.engines.torch_engine import TorchEngine

    model = _loaded(row, path)
    if row.dataset not in ANSWERED:
        return f"loads, with {model.num_classes} classes; no picture was labelled, as no right answer is known"
    if row.num_classes is None:
        return f"loads, with {model.num_classes} classes; no label was asked, as its classes are unknown"
    engine, picture = TorchEngine(model), read_image(question.picture())

    def logits(preprocess: Preprocess) -> np.ndarray:
        return engine.run(preprocess(picture)[None])["logits"][0]  # (K,)

    found = _judge(question.expect, logits(model.metadata.preprocess or Preprocess()), model.classes)
    if question.expect is None and row.name in CATS_LOGITS:
        found += _compare(logits(IMAGENET), CATS_LOGITS[row.name])
    return found


def _loaded(row: Weight, path: Path) -> Model:
    from ..models import info, load

    model, found = load(path), info(path)
    if found.format != row.format:
        raise CheckpointError(f"the file is of format {found.format}, expected {row.format}")
    # van_b6 may be either of its two widths
    if found.name != row.model and not (row.model in VARIANTS and found.name.startswith(row.model)):
        raise CheckpointError(f"the file holds {found.name}, expected {row.model}")
    if row.num_classes is not None and found.num_classes != row.num_classes:
        raise CheckpointError(f"the head has {found.num_classes} classes, expected {row.num_classes}")
    if found.layer_norm_eps != row.layer_norm_eps:
        raise CheckpointError(f"epsilon reads as {found.layer_norm_eps:g}, expected {row.layer_norm_eps:g}")
    return model


def _compare(logits: np.ndarray, published: tuple[float, ...]) -> str:
    off = float(np.abs(logits[: len(published)] - published).max())
    if off > LOGITS_TOLERANCE:
        raise CheckpointError(f"its first logits are {off:.2g} off the published {published}")
    return f"; first logits within {off:.1g} of the published ones"


def _judge(expect: str | None, logits: np.ndarray, classes: tuple[str, ...] | None) -> str:
    top = int(logits.argmax())
    label = f"{top} ({classes[top]})" if classes else str(top)
    if expect != "" and top not in _wanted(expect, classes):
        raise CheckpointError(f"the label is {label}, expected {expect or 'a cat, 281 to 285'}")
    return f"label {label}"


def _wanted(expect: str | None, classes: tuple[str, ...] | None) -> frozenset[int]:
    if expect is None:
        return CAT_CLASSES
    if expect.isdigit():
        return frozenset({int(expect)})
    if classes is None:
        raise CheckpointError(f"the file has no class names to find {expect!r} in; expect a class index")
    return frozenset(i for i, name in enumerate(classes) if expect.lower() in name.lower())
