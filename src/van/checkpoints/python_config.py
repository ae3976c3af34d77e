"""Reading the configuration text that OpenMMLab's tools store in a checkpoint: literals only, nothing is run."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

MOST_LETTERS = 2**21  # those of published files have some ten thousand


def parse(text: Any) -> dict[str, Any]:
    """The assignments of a configuration (`model = dict(…)`) as nested dicts; {} for other text."""
    if isinstance(text, Mapping):
        return dict(text)
    if not isinstance(text, str) or len(text) > MOST_LETTERS:
        return {}
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    found: dict[str, Any] = {}
    for node in module.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = _value(node.value, found)
    return found


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """The value of a literal, `dict(…)` or a name assigned before; None for any other expression."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(item, names) for item in node.elts]
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {key.value: _value(value, names) for key, value in pairs if isinstance(key, ast.Constant)}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict":
        return {word.arg: _value(word.value, names) for word in node.keywords if word.arg}
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _value(node.operand, names)
        return -value if isinstance(value, int | float) else None
    return names.get(node.id) if isinstance(node, ast.Name) else None


def at(config: Any, *path: str) -> Any:
    """The value at nested keys; None where the path ends early."""
    for name in path:
        if not isinstance(config, Mapping):
            return None
        config = config.get(name)
    return config
