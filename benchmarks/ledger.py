"""The ledger of figures, docs/results.json, and the documents' tables made from it.

An entry: id (unique), table (which table it belongs to, or null), what, value, unit, kind ("published", "ported"
or "measured"), source (paper, table, or the command that made it), and for measured ones date, machine and versions.

`python benchmarks/ledger.py` rewrites the tables between `<!-- ledger:NAME -->` and `<!-- /ledger -->` in README.md and
docs;
`--check` only says whether they are up to date. Benchmarks call `record`.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "docs" / "results.json"
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


def read(path: Path = RESULTS) -> list[dict[str, Any]]:
    """Every entry of the ledger."""
    return json.loads(path.read_text())["entries"] if path.exists() else []


def record(entries: list[dict[str, Any]], *, command: str, path: Path = RESULTS) -> None:
    """Add measured entries (id, what, value, unit, …), replacing older ones of the same id."""
    stamp = {"kind": "measured", "source": command, "date": datetime.date.today().isoformat(), "machine": machine()}
    stamp["versions"] = {name: importlib.metadata.version(name) for name in ("torch", "numpy")}
    fresh = {entry["id"]: stamp | entry for entry in entries}
    kept = [entry for entry in read(path) if entry["id"] not in fresh]
    write([*kept, *fresh.values()], path)


def write(entries: list[dict[str, Any]], path: Path = RESULTS) -> None:
    """Write the ledger, one entry a line, atomically."""
    lines = ",\n".join("  " + json.dumps(entry, ensure_ascii=False) for entry in entries)
    temporary = path.with_suffix(".tmp")
    temporary.write_text('{"entries": [\n' + lines + "\n]}\n")
    temporary.replace(path)


def machine() -> str:
    """What matters of this machine for a timing: cores and vector units."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    units = {"amx_bf16": "AMX", "avx512f": "AVX-512", "avx2": "AVX2"}
    vector = next((name for flag, name in units.items() if flag in flags), platform.machine())
    return f"{len(os.sched_getaffinity(0))} cores, {vector}"


def table(name: str, entries: list[dict[str, Any]]) -> str:
    """A markdown table: a row per `row`, a column per `column` of the entries of that table, in order of appearance."""
    cells = [entry for entry in entries if entry.get("table") == name]
    if not cells:
        raise SystemExit(f"ledger: a document asks for table {name!r}, which no entry belongs to")
    rows, columns = (list(dict.fromkeys(cell[key] for cell in cells)) for key in ("row", "column"))
    value = {(cell["row"], cell["column"]): cell for cell in cells}
    lines = ["| | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for row in rows:
        shown = [format_cell(value.get((row, column))) for column in columns]
        lines.append(f"| {row} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def format_cell(cell: dict[str, Any] | None) -> str:
    """A value as the tables show it; empty where there is none."""
    return "" if cell is None else cell.get("shown", f"{cell['value']:g}")


def rendered(text: str, entries: list[dict[str, Any]]) -> str:
    """The text with every table made anew."""
    pattern = re.compile(r"(<!-- ledger:(\S+) -->\n).*?(<!-- /ledger -->)", re.DOTALL)
    return pattern.sub(lambda match: f"{match[1]}{table(match[2], entries)}\n{match[3]}", text)


def main() -> int:
    """Render or check the documents."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 when a table is out of date")
    check = parser.parse_args().check
    entries, stale = read(), []
    for document in DOCUMENTS:
        text = document.read_text()
        new = rendered(text, entries)
        if new != text:
            stale.append(document.name)
            if not check:
                document.write_text(new)
    if stale and check:
        print(f"{', '.join(stale)} out of date; run python benchmarks/ledger.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
