"""The keys of version 0.1's detectors, which were torchvision's own around our backbone: pure data, stdlib only."""

from __future__ import annotations

import re

# A key's start as version 0.1 had it -> as it is now; what follows is the same.
OLDER_KEYS = (
    (r"backbone\.backbone\.", "backbone."),
    (r"backbone\.fpn\.inner_blocks\.(\d+)\.0\.", r"pyramid.laterals.\1."),
    (r"backbone\.fpn\.layer_blocks\.(\d+)\.0\.", r"pyramid.outputs.\1."),
    (r"backbone\.fpn\.extra_blocks\.p6\.", "pyramid.extras.0."),
    (r"backbone\.fpn\.extra_blocks\.p7\.", "pyramid.extras.1."),
)


def present_key(key: str) -> str:
    """The key of a tensor of a detector of version 0.1 as it is called now; any other key as it is."""
    for pattern, replacement in OLDER_KEYS:
        present, found = re.subn(f"^{pattern}", replacement, key)
        if found:
            return present
    return key
