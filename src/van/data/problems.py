"""What is wrong with the records of a data set: the first stops a strict reader, a lenient one counts them."""

from __future__ import annotations

from collections import Counter

from ..errors import DataError

LISTED = 10  # texts kept of each kind


class Problems:
    """Counts of what was found, by kind, and the first of each in words.

    strict: `add` raises DataError instead.
    """

    def __init__(self, *, strict: bool) -> None:
        self.strict = strict
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}

    def copy(self) -> Problems:
        """The same so far; what is added to one is not added to the other."""
        found = Problems(strict=self.strict)
        found.counts = self.counts.copy()
        found.examples = {kind: [*texts] for kind, texts in self.examples.items()}
        return found

    def add(self, kind: str, text: str) -> None:
        """Take in a problem; raises DataError with its text where reading is strict."""
        if self.strict:
            raise DataError(text)
        self.counts[kind] += 1
        listed = self.examples.setdefault(kind, [])
        if len(listed) < LISTED:
            listed.append(text)
