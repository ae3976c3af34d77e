"""Configurations of a head on a backbone, and the record in which files carry them.

A configuration is tagged: `task` says what the model is for, and the record of a head has a section of its own, by
which a file's reader finds the class again. A new task adds a subclass of `HeadConfig`; nothing here changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, ClassVar, Self

from ..errors import ConfigError, UnknownOptionError
from .backbone import VanConfig
from .model_config import BACKBONE, ModelConfig

# Section of a record -> the class whose fields it holds; filled as classes are defined.
SECTIONS: dict[str, type[HeadConfig]] = {}


class HeadConfig(ModelConfig):
    """Base of a frozen dataclass with a `backbone` and the fields of a head on it.

    section: key of the head's own fields in a record; a base of several kinds of heads has none.
    """

    section: ClassVar[str]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "section" in vars(cls):
            SECTIONS[cls.section] = cls

    @property
    def architecture(self) -> VanConfig:
        """The configuration of the backbone."""
        backbone: VanConfig = self.backbone
        return backbone

    @classmethod
    def own_fields(cls) -> tuple[str, ...]:
        """Names of the fields that are not the backbone's."""
        return tuple(field.name for field in fields(cls) if field.name != "backbone")  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready dict of every field, the backbone nested."""
        own = {name: getattr(self, name) for name in self.own_fields()}
        own = {name: list(value) if isinstance(value, tuple) else value for name, value in own.items()}
        return {"backbone": self.backbone.to_dict(), **own}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`; an unknown key raises UnknownNameError."""
        for name in values:
            if name not in ("backbone", *cls.own_fields()):
                raise UnknownOptionError.of(f"{cls.noun} option", name, ["backbone", *cls.own_fields()])
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        return cls(**{**given, "backbone": VanConfig.from_dict(values["backbone"])})

    def with_options(self, **options: Any) -> Self:
        """A copy with fields replaced; names of VanConfig's fields go to the backbone."""
        own = {name: value for name, value in options.items() if name in ("backbone", *self.own_fields())}
        rest = {name: value for name, value in options.items() if name not in own}
        own.setdefault("backbone", self.backbone.with_options(**rest))
        return replace(self, **own)  # type: ignore[type-var]

    def to_record(self) -> dict[str, Any]:
        """See ModelConfig.to_record."""
        values = self.to_dict()
        return {BACKBONE: values.pop("backbone"), self.section: values}


def from_record(record: Mapping[str, Any]) -> ModelConfig:
    """The configuration in a record: a head's where one of its sections is a known head's, else a classifier's.

    Raises KeyError without a backbone, ConfigError for values that cannot be, UnknownNameError for unknown fields.
    """
    backbone = VanConfig.from_dict(record[BACKBONE])
    for section, kind in SECTIONS.items():
        if (values := record.get(section)) is not None:
            if not isinstance(values, Mapping):
                raise ConfigError(f"section {section!r} is a {type(values).__name__}; expected named values")
            return kind.from_dict({**values, "backbone": backbone.with_options(num_classes=0).to_dict()})
    return backbone
