"""The report of `van verify-weights`: JSON, a Markdown table, and a proposal of what the table should say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..configs import published_facts
from .verify_photographs import Seen, disagreements, shown
from .verify_weights import FACTS, Check, Difference

_COLUMNS = ("weight", "status", "format", "model", "classes", "epsilon", "bytes", "sha256", "photographs", "result")
_MOST = 120  # characters of a line of Python


def to_dict(check: Check) -> dict[str, Any]:
    """A check, ready for JSON."""
    return {
        "name": check.weight.name,
        "status": check.status,
        "detail": check.detail,
        "sha256": check.sha256,
        "notes": list(check.notes),
        "link": check.link,
        "source": check.weight.source,
        "revision": check.weight.revision,
        "facts": dict(check.facts),
        "photographs": [asdict(one) for one in check.seen],
        "differences": [asdict(one) for one in check.differences],
        "news": [asdict(one) for one in check.news],
    }


def markdown(checks: Iterable[Check]) -> str:
    """The checks as a Markdown table, with the notes below it."""
    checks = list(checks)
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|" + "---|" * len(_COLUMNS)]
    lines += ["| " + " | ".join(_cells(check)) + " |" for check in checks]
    notes = [f"* `{check.weight.name}`: {_escaped(note)}" for check in checks for note in check.notes]
    return "\n".join([*lines, *([""] if notes else []), *notes]) + "\n"


def _cells(check: Check) -> list[str]:
    facts = check.facts
    epsilon, size = facts.get("layer_norm_eps"), facts.get("bytes")
    cells = [
        f"`{check.weight.name}`",
        check.status,
        str(facts.get("format", "")),
        str(facts.get("model", "")),
        str(facts.get("num_classes", "")),
        "" if epsilon is None else f"{epsilon:g}",
        "" if size is None else f"{size:,}",
        f"`{check.sha256}`" if check.sha256 else "",
        "; ".join(photograph_lines(check.seen)),
        check.detail,
    ]
    return [_escaped(cell) for cell in cells]


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def photograph_lines(seen: Sequence[Seen]) -> list[str]:
    """`china.jpg: 698 0.8312 (torch, onnx)`, and what other engines see where they differ."""
    lines = []
    for name in dict.fromkeys(one.photograph for one in seen):
        ours = [one for one in seen if one.photograph == name]
        apart = list(disagreements(ours))
        engines = ", ".join(one.engine for one in ours if not list(disagreements([ours[0], one])))
        lines.append("; ".join([f"{name}: {shown(ours[0])} ({engines})", *apart]))
    return lines


def differing_lines(check: Check) -> list[str]:
    """What the table has otherwise or not at all, a line for each fact."""
    return [f"{one.name}: {_value(one.expected)} in the table, {one.found!r} in the file" for one in _changed(check)]


def proposal(checks: Iterable[Check], known: Mapping[str, Mapping[str, Any]] = published_facts.FACTS) -> str:
    """The text of `van/configs/published_facts.py` with what was found in files that differs from the table.

    known: the facts that the module has; they stay where nothing else was found.
    """
    facts = {name: dict(values) for name, values in known.items()}
    said: dict[tuple[str, str], str] = {}
    for check in checks:
        if "format" not in check.facts:  # the file was not read
            continue
        for one in _changed(check):
            facts.setdefault(check.weight.name, {})[one.name] = one.found
            said[check.weight.name, one.name] = "new" if one.expected is None else f"was {one.expected!r}"
    lines = _module_head()
    for name in sorted(facts):
        lines.append(f'    "{name}": {{')
        for key in sorted(facts[name], key=_place):
            lines += _entry(key, facts[name][key], said.get((name, key)))
        lines.append("    },")
    return "\n".join(lines) + ("\n}\n" if facts else "}\n")


def _changed(check: Check) -> list[Difference]:
    return sorted((*check.differences, *check.news), key=lambda one: _place(one.name))


def _place(name: str) -> int:
    return FACTS.index(name) if name in FACTS else len(FACTS)


def _value(expected: object) -> str:
    return "nothing" if expected is None else repr(expected)


def _module_head() -> list[str]:
    return [
        '"""What was found in the published files themselves, by the name of their row; it wins over what their '
        "publishers state.",
        "",
        "Written by `van verify-weights --write FILE`.",
        '"""',
        "",
        "from __future__ import annotations",
        "",
        "from collections.abc import Mapping",
        "from typing import Any",
        "",
        "FACTS: Mapping[str, Mapping[str, Any]] = {",
    ]


def _entry(key: str, value: object, comment: str | None) -> list[str]:
    lines = [f"        # {key} {comment}"] if comment and comment != "new" else []
    one_line = f'        "{key}": {_literal(value)},'
    if len(one_line) <= _MOST or not isinstance(value, tuple):
        return [*lines, one_line]
    return [*lines, f'        "{key}": (', *(f"            {_literal(part)}," for part in value), "        ),"]


def _literal(value: object) -> str:
    """A value as Python, in the quotes that a formatter leaves."""
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_literal, value)) + ("," if len(value) == 1 else "") + ")"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
