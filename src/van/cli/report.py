"""Write a training run as one self-contained HTML page: curves, confusion matrix, worst images, recipe, environment.

van report runs/finetune-20260101-120000
van report RUN --out page.html --device cuda
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .output import check_writable, say


def add_arguments(parser: Any) -> None:
    """Options of `van report`."""
    parser.add_argument("run", help="the folder of a run, finished or under way")
    parser.add_argument("--out", help="the page (default: report.html in the run's folder)")
    parser.add_argument("--device", default="cpu", help="where the model is evaluated: cpu, cuda, …")


def run(options: Any) -> int:
    """Write the page, and say where it is."""
    check_writable(options.out, ".html", ".htm")
    from ..tools.report.page import write_report

    page = write_report(Path(options.run), Path(options.out) if options.out else None, device=options.device)
    say(f"{page}: {page.stat().st_size / 1e6:.1f} MB, open it in a browser")
    return 0
