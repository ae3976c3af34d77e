"""Download the published weights and check them: sha256, strict load, the label of a known image (network).

Exit code 1 when one failed.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from .output import say


def add_arguments(parser: Any) -> None:
    """Options of `van verify-weights`."""
    parser.add_argument("pattern", nargs="?", default="*", help="which ones, e.g. 'official/*', van_b0, van-tiny")
    parser.add_argument("--image", help="classify this file instead of the two cats of COCO 000000039769")
    parser.add_argument("--expect", help="its class: an index, or a part of the class name")
    parser.add_argument("--cache", help="folder for the downloads (default: the hub's cache, and ~/.cache/van)")
    parser.add_argument("--list", action="store_true", help="only list what is known of them, as Markdown")
    parser.add_argument("--json", action="store_true", help="print JSON lines")


def run(options: Any) -> int:
    """Check one weight after the other, a line each as soon as it is done."""
    from ..configs import published_weights as weights
    from ..images.preprocess import read_image

    rows = weights.find(options.pattern)
    if options.list:
        print(weights.markdown(rows))
        return 0
    if options.image is not None:
        read_image(options.image)  # a bad image is reported once, not for every weight
    from ..tools.verify_weights import verify

    width, count = max(len(row.name) for row in rows), Counter[str]()
    for check in verify(rows, image=options.image, expect=options.expect, cache=options.cache):
        count[check.status] += 1
        if options.json:
            facts = {"name": check.weight.name, "status": check.status, "detail": check.detail}
            print(json.dumps({**facts, "sha256": check.sha256, "notes": check.notes}), flush=True)
            continue
        say(f"{check.status:<7}  {check.weight.name:<{width}}  {check.detail}")
        for line in (*([f"sha256 {check.sha256}"] if check.sha256 else []), *check.notes):
            say(f"{'':<7}  {'':<{width}}  {line}")
    if not options.json:
        print(", ".join(f"{count[status]} {status}" for status in ("ok", "failed", "skipped")))
    return 1 if count["failed"] else 0
