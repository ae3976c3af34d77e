"""Names and messages made safe to show: on a terminal, in a figure, on a page."""

from __future__ import annotations

import re

# What steers a terminal or cannot be encoded: control characters, line and paragraph separators, marks and overrides of
# the writing direction, and the surrogates that stand for the bytes of a name that is not UTF-8.
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    """Text on one line, safe to show: what steers a terminal, or cannot be encoded, as `\\x1b`, `\\u202e`, `\\n`."""
    return UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))
