"""The argument parser of every verb: jsonargparse, with errors on one line."""

from __future__ import annotations

import difflib
import re
from typing import Any, NoReturn

import jsonargparse

from ..errors import ConfigError

_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text", "NoneType": "null"}
_ONE = re.compile(r'Parser key "([\w.]+)":\s+Expected a (<class .*?>)\.\s+Got value: (.*)', re.DOTALL)
_SEVERAL = re.compile(r'Parser key "([\w.]+)":.*?Subtypes: \[(.*?)\]\s+Errors:.*?Given value: (.*)', re.DOTALL)


def _in_words(message: str) -> str:
    """jsonargparse's complaint about the kind of a value as everybody else's is: got, expected."""
    found = _ONE.fullmatch(message.strip()) or _SEVERAL.fullmatch(message.strip())
    if found is None:
        return message
    kinds = re.sub(r"<class '(\w+)'>", lambda kind: _KINDS.get(kind[1], kind[1]), found[2])
    return f"{found[1]} is {found[3]}; expected {kinds}"


class HelpFormatter(jsonargparse.DefaultHelpFormatter):
    """jsonargparse's, without the defaults that say nothing."""

    def _expand_help(self, action: Any) -> str:
        text = super()._expand_help(action)
        return re.sub(r" \((?:default: (?:null|False)|required)\)|, default: null(?=\))", "", text)


class Parser(jsonargparse.ArgumentParser):
    """jsonargparse's parser that raises ConfigError, with a suggestion for a mistyped option."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, exit_on_error=False, **{"formatter_class": HelpFormatter, **kwargs})

    def error(self, message: str, *args: Any, **kwargs: Any) -> NoReturn:
        raise ConfigError(f"{self.prog}: {self._spelled(message)}{self._suggestion(message)}")

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().parse_args(*args, **kwargs)
        except ConfigError:
            raise
        except (jsonargparse.ArgumentError, TypeError, ValueError, OverflowError, RecursionError) as error:
            message = str(error)
            raise ConfigError(f"{self.prog}: {self._spelled(message)}{self._suggestion(message)}") from error

    def _spelled(self, message: str) -> str:
        """With what is missing as it is typed: `--data`, not `data`."""
        message = _in_words(message)
        start, required, names = message.partition("are required: ")
        typed = {action.dest: action.option_strings[-1] for action in self._actions if action.option_strings}
        spelled = ", ".join(typed.get(name, name) for name in names.split(", "))
        return f"{start}{required}{spelled}; {self.prog} --help tells them all" if required else message

    def _suggestion(self, message: str) -> str:
        known = [option for action in self._actions for option in action.option_strings]
        message = re.sub(r"<class '\w+'>", "", message)
        message = re.sub(r"Group '([\w.]+)' does not accept option '([\w.]+)'", r"--\1.\2", message)
        # names with dashes first: the other words of "unrecognized arguments: --lrr" resemble options too
        for word in re.findall(r"--[\w.-]+", message) or re.findall(r"'([\w.-]+)'", message):
            name = word if word.startswith("-") else f"--{word}"
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
            if near and near[0] != name:
                return f"; did you mean {near[0]}?"
        return ""
