"""The argument parsers: jsonargparse, with errors on one line and a suggestion for what is mistyped."""

from __future__ import annotations

import argparse
import difflib
import importlib
import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any, NoReturn

import jsonargparse

from ..errors import ConfigError, UnknownNameError, VanError

_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text", "NoneType": "null"}
_ONE = re.compile(r'Parser key "([\w.]+)":\s+Expected a (<class .*?>)\.\s+Got value: (.*)', re.DOTALL)
_SEVERAL = re.compile(r'Parser key "([\w.]+)":.*?Subtypes: \[(.*?)\]\s+Errors:.*?Given value: (.*)', re.DOTALL)


def _in_words(message: str) -> str:
    """jsonargparse's complaint about the type of a value in the form of all others: got, expected."""
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

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if isinstance(ex, VanError):  # raised on purpose while arguments were parsed
            raise ex
        raise ConfigError(f"{self.prog}: {self._spelled(message)}{self.suggestion(message)}")

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().parse_args(*args, **kwargs)
        except VanError:
            raise
        except (jsonargparse.ArgumentError, TypeError, ValueError, OverflowError, RecursionError) as error:
            self.error(str(error), error)

    def _spelled(self, message: str) -> str:
        """With what is missing as it is typed: `--data`, not `data`."""
        message = _in_words(message)
        start, required, names = message.partition("are required: ")
        typed = {action.dest: action.option_strings[-1] for action in self._actions if action.option_strings}
        spelled = ", ".join(typed.get(name, name) for name in names.split(", "))
        return f"{start}{required}{spelled}; {self.prog} --help lists them all" if required else message

    def suggestion(self, message: str) -> str:
        """`; did you mean --optim.lr?` for a message about an option that is nearly one of this parser, else ""."""
        known = [option for action in self._actions for option in action.option_strings]
        message = re.sub(r"<class '\w+'>", "", message)
        # names with dashes first: the other words of "unrecognized arguments: --lrr" resemble options too
        for word in re.findall(r"--[\w.-]+", message) or re.findall(r"'([\w.-]+)'", message):
            name = word if word.startswith("-") else f"--{word}"
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
            if near and near[0] != name:
                return f"; did you mean {near[0]}?"
        return ""


class Commands(Parser):
    """The parser of `van`: its subcommands are the verbs, of which it adds the one that is asked for.

    modules: verb -> name of its module in `package`. The verb's options lie under its name in what is parsed.
    """

    def __init__(self, modules: Mapping[str, str], *, package: str) -> None:
        super().__init__(prog="van", add_help=False, allow_abbrev=False, print_config=None)
        self.add_argument("-h", "--help", dest="show_help", action="store_true")
        self.add_argument("-V", "--version", dest="show_version", action="store_true")
        self.verbs = self.add_subcommands(required=False, dest="command")
        self.modules, self.package = modules, package
        self.chosen: Parser | None = None

    def module(self, verb: str) -> ModuleType:
        """The module of a verb."""
        return importlib.import_module(f".{self.modules[verb]}", self.package)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if self.chosen is not None:  # jsonargparse checks what is required once it has parsed everything
            of_verb = rf'(are required: |, |Parser key "){re.escape(self.chosen.prog.removeprefix("van "))}\.'
            self.chosen.error(re.sub(of_verb, r"\1", message), ex)
        super().error(message, ex)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """argparse's check of a choice: the one moment at which the verb is known and its options are not needed yet.

        jsonargparse wants the parsers of all subcommands in advance, which would import every verb's module.
        """
        if action is self.verbs and value not in self.verbs.choices:
            self._add(value)
        super()._check_value(action, value)

    def _add(self, verb: str) -> None:
        if verb == "help":
            parser = Parser(add_help=False)
            parser.add_argument("topic", nargs="?")
        elif verb not in self.modules:
            raise UnknownNameError.of("command", verb, self.modules)
        else:
            module = self.module(verb)
            parser = getattr(module, "PARSER", Parser)(description=(module.__doc__ or "").strip())
            module.add_arguments(parser)
        abbreviates = parser.allow_abbrev
        self.verbs.add_subcommand(verb, parser)
        parser.prog, parser.allow_abbrev = f"van {verb}", abbreviates
        self.chosen = parser
