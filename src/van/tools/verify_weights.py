"""Whether the published weights are what the table says: download, hash, strict load, expected labels."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checkpoints import hub
from ..checkpoints.transfer import Fetched, Progress, WrongFileError, sha256_of
from ..configs.backbone import VARIANTS
from ..configs.published_weights import Weight
from ..errors import CheckpointError, MissingExtraError, UnknownNameError, VanError, VanNotice
from ..files import cache_folder
from ..images.preprocess import IMAGENET, Preprocess, read_image
from .verify_photographs import ENGINES as ENGINES
from .verify_photographs import SCORE_TOLERANCE, Seen, disagreements, look

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
# What is read off a file, in the order of the reports; fields of Weight.
FACTS = ("sha256", "bytes", "format", "model", "num_classes", "layer_norm_eps", "labels")

Fetch = Callable[[Weight, "Path | None"], "Path | Fetched"]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A fact of a file that the table has otherwise; expected: None where the table has nothing."""

    name: str
    found: object
    expected: object


@dataclass(frozen=True, kw_only=True)
class Check:
    """What became of one weight: status "ok", "failed" or "skipped", and why.

    sha256: of the downloaded file; None when there is none. notes: what loading it had to decide, which links failed.
    link: where the file came from; None when it was on this machine. facts: what was read off the file, by the names
    of the row's fields. seen: the photographs on every engine. differences: facts that the table has otherwise; news:
    those that it has nothing of.
    """

    weight: Weight
    status: str
    detail: str
    sha256: str | None = None
    notes: tuple[str, ...] = ()
    link: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    seen: tuple[Seen, ...] = ()
    differences: tuple[Difference, ...] = ()
    news: tuple[Difference, ...] = ()


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
    engines: Sequence[str] = (),
    progress: Callable[[Weight, int, int | None], None] | None = None,
) -> Iterator[Check]:
    """One Check per row, as soon as it is done (network, unless everything is in the cache).

    image: a file to classify instead of the two cats; expect: its class index, or a part of its class name.
    cache: folder for downloads. fetch: (row, cache) -> local path, for another way to get the files.
    engines: of ENGINES, each of which runs the two photographs that come with scikit-learn; what the others see is
    compared with the first one's.
    progress: (row, bytes so far, bytes in all or None), as a file arrives from a plain link.
    Raises UnknownNameError for an engine that does not exist.
    """
    for engine in engines:
        if engine not in ENGINES:
            raise UnknownNameError.of("engine", engine, ENGINES)
    return _verify(rows, image, expect, Path(cache) if cache is not None else None, fetch, tuple(engines), progress)


def _verify(
    rows: Iterable[Weight],
    image: str | Path | None,
    expect: str | None,
    cache: Path | None,
    fetch: Fetch | None,
    engines: tuple[str, ...],
    progress: Callable[[Weight, int, int | None], None] | None,
) -> Iterator[Check]:
    @functools.cache
    def picture() -> Path:
        return (
            Path(image)
            if image is not None
            else hub.fetch_url(CATS_URL, (cache or cache_folder()) / Path(CATS_URL).name)
        )

    question = Question(picture, expect if image is None or expect is not None else "")
    first: dict[str, str] = {}  # hash -> the row that had it first
    for row in rows:
        fetch_row = fetch or (fetch_weight if progress is None else _with_progress(progress))
        check = _check(row, question, cache, fetch_row, engines)
        if check.sha256 and (other := first.setdefault(check.sha256, row.name)) != row.name:
            check = replace(check, notes=(*check.notes, f"the same bytes as {other}"))
        yield check


def fetch_weight(row: Weight, cache: Path | None, progress: Progress | None = None) -> Fetched:
    """The row's file, or folder of transformers' layout, downloaded unless it is on this machine.

    A file with another hash than the table's is kept beside its place, for the report.
    """
    return hub.fetch_published(row, cache, keep_wrong=True, progress=progress)


def _with_progress(progress: Callable[[Weight, int, int | None], None]) -> Fetch:
    return lambda row, cache: fetch_weight(row, cache, functools.partial(progress, row))


def _check(row: Weight, question: Question, cache: Path | None, fetch: Fetch, engines: tuple[str, ...]) -> Check:
    if row.kind == "unlinked":
        return Check(weight=row, status="skipped", detail="no link was published")
    check = Check(weight=row, status="failed", detail="", notes=(row.erratum,) if row.erratum else ())
    with warnings.catch_warnings(record=True) as notices:
        warnings.simplefilter("always", VanNotice)
        try:
            check, path = _fetched(check, fetch, cache)
            check = _examined(check, path, question, engines)
        except MissingExtraError as error:
            check = replace(check, status="skipped", detail=str(error))
        except (
            Exception
        ) as error:  # whatever a file from elsewhere brings about, the other rows are still to be checked
            reason = str(error) if isinstance(error, VanError) else f"{type(error).__name__}: {error}"
            words = (*_in_words(check.differences), reason)
            check = replace(check, status="failed", detail=" ".join("; ".join(words).split()))
    notes = (str(one.message) for one in notices if issubclass(one.category, VanNotice))
    return replace(check, notes=(*check.notes, *dict.fromkeys(notes)))


def _fetched(check: Check, fetch: Fetch, cache: Path | None) -> tuple[Check, Path]:
    """The check with what is known of the file before it is opened, and the file."""
    try:
        got = fetch(check.weight, cache)
    except WrongFileError as error:
        if error.kept is None:
            raise
        got = Fetched(path=error.kept, failures=(str(error),))
    fetched = got if isinstance(got, Fetched) else Fetched(path=got)
    file = _weight_file(fetched.path)
    digits = sha256_of(file)
    check = replace(check, link=fetched.link, notes=(*check.notes, *fetched.failures), sha256=digits)
    return _with_facts(check, {"sha256": digits, "bytes": file.stat().st_size}), fetched.path


def _weight_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    return next(path / name for name in hub.TRANSFORMERS_WEIGHTS if (path / name).is_file())


def _examined(check: Check, path: Path, question: Question, engines: tuple[str, ...]) -> Check:
    """The check of a file, loaded strictly, compared with its row, and run."""
    from ..models import info, load

    row = check.weight
    model, found = load(path), info(path)
    facts = {name: getattr(found, name) for name in ("format", "num_classes", "layer_norm_eps")}
    check = _with_facts(check, {**check.facts, **facts, "model": found.name})
    as_expected = not check.differences
    seen, notes = _photographs(model, path, engines)
    labels = tuple((one.photograph, one.index, round(one.score, 4)) for one in seen if one.engine == seen[0].engine)
    check = _with_facts(
        replace(check, seen=seen, notes=(*check.notes, *notes)),
        {**check.facts, **({"labels": labels} if labels else {})},
    )
    wrong = [*_in_words(check.differences), *disagreements(seen)]
    said = ""
    try:
        hashed = all(each.name == "sha256" for each in check.differences)
        said = _answer(row, model, question) if as_expected or hashed else ""
    except VanError as error:
        wrong.append(str(error))
    if wrong:
        return replace(check, detail=" ".join("; ".join([*wrong, *([said] if said else [])]).split()))
    return replace(check, status="ok", detail=said)


def _photographs(model: Model, path: Path, engines: tuple[str, ...]) -> tuple[tuple[Seen, ...], tuple[str, ...]]:
    if not engines:
        return (), ()
    if not model.num_classes:
        return (), ("a backbone without a head: there is no class to see on the photographs",)
    try:
        return look(model, path, engines)
    except MissingExtraError as error:
        return (), (f"the photographs were not looked at: {error}",)


def _with_facts(check: Check, facts: Mapping[str, Any]) -> Check:
    """The check with these facts, compared with the row."""
    differences, news = [], []
    for name in FACTS:
        if name not in facts:
            continue
        known = getattr(check.weight, name)
        one = Difference(name=name, found=facts[name], expected=known if known not in (None, ()) else None)
        if one.expected is None:
            news.append(one)
        elif not _SAME.get(name, lambda found, expected: found == expected)(one.found, one.expected):
            differences.append(one)
        elif name == "sha256" and one.found != one.expected:
            news.append(one)  # the table has its first digits
    return replace(check, facts=facts, differences=tuple(differences), news=tuple(news))


def _same_model(found: str, expected: str) -> bool:
    """Equal, or the other of the two widths that van_b6 may have."""
    return found == expected or (expected in VARIANTS and found.startswith(expected))


def _same_labels(found: tuple[tuple[str, int, float], ...], expected: tuple[tuple[str, int, float], ...]) -> bool:
    return [one[:2] for one in found] == [one[:2] for one in expected] and all(
        abs(a[2] - b[2]) <= SCORE_TOLERANCE for a, b in zip(found, expected, strict=True)
    )


_SAME: dict[str, Callable[[Any, Any], bool]] = {
    "sha256": str.startswith,
    "model": _same_model,
    "labels": _same_labels,
}
_WORDS: dict[str, Callable[[Any, Any], str]] = {
    "sha256": lambda found, expected: f"sha256 is {found}, expected {expected}{'' if len(expected) == 64 else '…'}",
    "bytes": lambda found, expected: f"the file has {found:,} bytes, expected {expected:,}",
    "format": lambda found, expected: f"the file is of format {found}, expected {expected}",
    "model": lambda found, expected: f"the file holds {found}, expected {expected}",
    "num_classes": lambda found, expected: f"the head has {found} classes, expected {expected}",
    "layer_norm_eps": lambda found, expected: f"epsilon reads as {found:g}, expected {expected:g}",
    "labels": lambda found, expected: f"the photographs are labelled {found}, expected {expected}",
}


def _in_words(differences: Iterable[Difference]) -> list[str]:
    return [_WORDS[each.name](each.found, each.expected) for each in differences]


def _answer(row: Weight, model: Model, question: Question) -> str:
    """Classify the image; returns the result in words, raises CheckpointError for a wrong one."""
    from ..inference.engines.torch_engine import TorchEngine

    if row.dataset not in ANSWERED or not model.num_classes:
        return f"loads, with {model.num_classes} classes; no picture was labelled, as no right answer is known"
    if row.num_classes is None:
        return f"loads, with {model.num_classes} classes; no label was asked, as its classes are unknown"
    try:
        picture = read_image(question.picture())
    except CheckpointError as error:  # the image is not the publisher's
        return f"loads, with {model.num_classes} classes; no label was asked: {error}"
    engine = TorchEngine(model)

    def logits(preprocess: Preprocess) -> np.ndarray:
        return engine.run(preprocess(picture)[None])["logits"][0]  # (K,)

    found = _judge(question.expect, logits(model.metadata.preprocess or Preprocess()), model.classes)
    if question.expect is None and row.name in CATS_LOGITS:
        found += _compare(logits(IMAGENET), CATS_LOGITS[row.name])
    return found


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
