"""Whether two lists of class names mean the same classes: spelling and order apart."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def _plain(name: str) -> str:
    """Composed characters, blanks at the ends and repeated ones gone."""
    return " ".join(unicodedata.normalize("NFKC", name).split())


def _without_case(name: str) -> str:
    return _plain(_plain(name).casefold())


def _without_separators(name: str) -> str:
    return _plain(_without_case(name).replace("-", " ").replace("_", " "))


# From strict to lenient; the first that keeps every class of either side apart, and makes both sides the same, counts.
_SPELLINGS = (str, _plain, _without_case, _without_separators)


def places(known: Sequence[str], wanted: Sequence[str]) -> tuple[int, ...] | None:
    """Where each of `wanted` stands in `known`; None unless both name the same classes.

    Letter case, blanks, "-" and "_" do not count where names differ in nothing else: 'bed ' is 'bed', "Traffic_Light"
    is "traffic light", while "a" and "A" of one list stay two classes.
    """
    if tuple(known) == tuple(wanted):
        return tuple(range(len(wanted)))
    for spelled in _SPELLINGS:
        theirs, ours = [spelled(name) for name in known], [spelled(name) for name in wanted]
        if len(set(theirs)) == len(theirs) and sorted(theirs) == sorted(ours):
            return tuple(theirs.index(name) for name in ours)
    return None


def first_difference(known: Sequence[str], wanted: Sequence[str]) -> int:
    """Number of the first class that both sides call differently, spelling apart; of lists of one length."""
    pairs = list(zip(known, wanted, strict=True))
    different = (i for i, (a, b) in enumerate(pairs) if _without_separators(a) != _without_separators(b))
    return next(different, next(i for i, (a, b) in enumerate(pairs) if a != b))
