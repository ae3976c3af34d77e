"""What recipes of every task share: sections of plain values, replaced by dotted name, as nested dicts and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import MISSING, fields, replace
from typing import Any, Self

from ..errors import ConfigError, UnknownNameError
from .types import check_types


class Sectioned:
    """Base of a frozen dataclass whose fields are plain values and sections, frozen dataclasses themselves."""

    @classmethod
    def sections(cls) -> dict[str, type]:
        """Section name -> its dataclass, in the order of the fields."""
        made = {item.name: item.default_factory for item in fields(cls)}  # type: ignore[arg-type]
        return {name: kind for name, kind in made.items() if kind is not MISSING and isinstance(kind, type)}

    def with_options(self, **dotted: Any) -> Self:
        """A copy with values replaced by dotted name, `{"optim.lr": 1e-4}`; unknown names raise UnknownNameError."""
        groups: dict[str, dict[str, Any]] = {}
        for name, value in dotted.items():
            group, _, key = name.rpartition(".")
            groups.setdefault(group, {})[key] = value
        changes = {
            group: replace(getattr(self, group), **_checked(type(getattr(self, group)), values, group))
            for group, values in groups.items()
            if group and known(type(self), {group: None})
        }
        return replace(self, **_checked(type(self), groups.get("", {})), **changes)  # type: ignore[type-var]

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dict, tuples as lists: what recipe.yaml holds."""
        return _plain(dataclasses.asdict(self))  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`; missing keys take their defaults, unknown ones raise UnknownNameError."""
        given = dict(known(cls, values))
        for name, kind in cls.sections().items():
            section = given.get(name, {})
            if not isinstance(section, Mapping):
                raise ConfigError(f"recipe section {name!r} is {section!r}; expected keys and values")
            section = {key: _named(value) for key, value in section.items()}
            given[name] = kind(**{key: _frozen(value) for key, value in _checked(kind, section, name).items()})
        check_types(cls, {key: value for key, value in given.items() if key not in cls.sections()})
        return cls(**given)


def known(kind: type, values: Mapping[str, Any], section: str = "") -> Mapping[str, Any]:
    """`values`, once every key is a field of the dataclass `kind`; raises UnknownNameError."""
    names = [item.name for item in fields(kind)]
    for name in values:
        if name not in names:
            prefix = f"{section}." if section else ""
            raise UnknownNameError.of("recipe key", prefix + name, [prefix + other for other in names])
    return values


def _checked(kind: type, values: Mapping[str, Any], section: str = "") -> Mapping[str, Any]:
    """`values`, once they are fields of `kind` and of the declared types."""
    check_types(kind, known(kind, values, section), section)
    return values


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _named(value: Any) -> Any:
    """Keys as text: YAML reads a class called 7 as a number."""
    whole = isinstance(value, dict) and all(type(key) in (str, int) for key in value)
    return {str(key): item for key, item in value.items()} if whole else value


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value
