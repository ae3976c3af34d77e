"""How often a JPEG file goes over its pixels: decoding takes as many passes, however few bytes each has."""

from __future__ import annotations

import re

MOST_SCANS = 50  # progressive files have about ten
_MOST_SEGMENTS = 10_000
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
# What ends the entropy-coded data of a scan: a marker that is neither a stuffed byte, a restart nor filling.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)


def has_too_many_scans(content: bytes) -> bool:
    """Whether an image file is a JPEG of more than MOST_SCANS scans; what follows its end is ignored.

    Of 50 million pixels a scan takes a tenth of a second, and a file of some hundred kilobytes can hold thousands.
    """
    if not content.startswith(b"\xff\xd8"):
        return False
    position, scans = 2, 0
    for _ in range(_MOST_SEGMENTS):
        found = _MARKER.search(content, position)
        if found is None or content[found.start() + 1] == _EOI:
            return False
        marker, length = content[found.start() + 1], content[found.end() : found.end() + 2]
        scans += marker == _SOS
        if scans > MOST_SCANS:
            return True
        bare = marker in (_SOI, 0x01)  # without a length
        position = found.end() + (0 if bare else max(2, int.from_bytes(length, "big")))
    return True
