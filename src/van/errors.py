"""What can go wrong, as a tree.

VanError                    every error this package raises on purpose; the command line prints it on one line, code 2
├── ConfigError             an option, a recipe key or an architecture field has a value that cannot work
│   └── UnknownNameError    a name that is not in a table; the message suggests the nearest known ones
│       └── UnknownOptionError  a keyword argument that does not exist; a TypeError as well
├── CheckpointError         a file cannot be read as a checkpoint, or does not fit the model
│   └── UnsafeFileError     a pickle asks for code that is not allow-listed; nothing of it was run
├── DataError               a folder, an image or a label file is not what the task needs
├── LostProcessError        a process that trains with this one is gone; the run can be resumed (code 69)
├── PreemptedError          a run was asked to stop and has saved everything; it can be resumed (code 75)
└── MissingExtraError       an optional dependency is not installed; the message names the extra

VanNotice                   a warning: something was decided on the user's behalf
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def with_article(noun: str) -> str:
    """`a detector`, `an instance segmenter`: for messages."""
    return f"{'an' if noun[:1] in 'aeiou' else 'a'} {noun}"


class VanError(Exception):
    """Base of every error raised on purpose; its text says got, expected and remedy."""

    exit_code = 2  # of the command line


class ConfigError(VanError, ValueError):
    """An option, recipe key or architecture field cannot work."""


class UnknownNameError(ConfigError, KeyError):
    """A name is in no table."""

    __str__ = Exception.__str__  # KeyError would print the repr of the message

    @classmethod
    def of(cls, kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
        """`unknown model 'van_b9'; did you mean 'van_b6'? known: van_b0, …`."""
        names, name = list(known), str(name)[:80]  # of a damaged file it may have any length
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        shown = ", ".join(names[:12]) + (f", … ({len(names)} in all)" if len(names) > 12 else "")
        return cls(f"unknown {kind} {name!r}{hint} known: {shown}")


class UnknownOptionError(UnknownNameError, TypeError):
    """A keyword argument is in no table; also a TypeError, as Python raises for any other function."""


class CheckpointError(VanError):
    """A file cannot be read as a checkpoint, or does not fit the model."""


class UnsafeFileError(CheckpointError):
    """A pickle asks for a global that is not allow-listed."""


class DataError(VanError):
    """A folder, image or label file is not what the task needs."""


class LostProcessError(VanError):
    """A process that trains with this one is gone."""

    exit_code = 69  # EX_UNAVAILABLE


class PreemptedError(VanError):
    """A run was asked to stop by SIGTERM or SIGUSR1, and has saved everything."""

    exit_code = 75  # EX_TEMPFAIL: try again later


class MissingExtraError(VanError, ImportError):
    """An optional dependency is not installed."""

    @classmethod
    def of(cls, package: str, extra: str, purpose: str) -> MissingExtraError:
        """`scikit-learn is needed for the embedded digits; pip install 'visual-attention-network[train]'`."""
        return cls(f"{package} is needed {purpose}; pip install 'visual-attention-network[{extra}]'")


class VanNotice(UserWarning):
    """Something was decided on the user's behalf ."""
