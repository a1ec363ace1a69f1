"""Subcommands of ``hideseekseg`` and their types of arguments: one home for each.

A value that is out of range is refused by argparse, in one line that names the option.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ..plain_data import printable

OK, FAILED, BAD_INPUT, STOPPED = 0, 1, 2, 130

DEVICES = ("auto", "cpu", "cuda", "mps")
WEIGHTS_HELP = "weights directory (default: bundled weights)"
MOST = 10**9


@dataclass(frozen=True)
class Command:
    """A subcommand of ``hideseekseg``; ``run`` returns the exit status."""

    name: str
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help that says every default there is, and keeps the lines of what stands below it.

    A flag has none to say: what it stores where it is not given may be True.
    """

    def _get_help_string(self, action: argparse.Action) -> str:
        said, value = action.help or "", action.default
        silent = action.nargs == 0 or "default" in said
        silent = silent or value in (None, False, (), [], "", argparse.SUPPRESS)
        return said if silent or not action.option_strings else f"{said} (default: %(default)s)"


class Parser(argparse.ArgumentParser):
    """A parser that refuses in one line; its subparsers do so, too."""

    def error(self, message: str) -> NoReturn:
        """Print the cause and where help is; exit as for bad input."""
        line = f"{self.prog}: {message} (see {self.prog} --help)"
        print(printable(line), file=sys.stderr)
        self.exit(BAD_INPUT)


def say(text: str) -> None:
    """Print a line, or a table of lines, to standard output at once."""
    print("\n".join(map(printable, text.split("\n"))), flush=True)


def say_aside(line: str) -> None:
    """Print a line to standard error at once, as progress that is not a result."""
    print(printable(line), file=sys.stderr, flush=True)


def whole(low: int, high: int = MOST) -> Callable[[str], int]:
    """Return the type of whole numbers between ``low`` and ``high``."""

    def parse(text: str) -> int:
        digits = text.strip().removeprefix("-")
        # Few digits: Python refuses to read thousands of them.
        number = int(text) if digits.isdecimal() and len(digits) < 20 else None
        if number is None or not low <= number <= high:
            asked = f"between {low} and {high}" if high < MOST else f"of at least {low}"
            raise argparse.ArgumentTypeError(f"{_shown(text)} is not a whole number {asked}")
        return number

    return parse


count = whole(1)
count_or_none = whole(0)
threads = whole(1, 1024)
port = whole(0, 65535)
seed = whole(0, 2**32 - 1)


def share(text: str) -> float:
    """Parse a number between 0 and 1."""
    value = _number(text)
    if value is None or not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{_shown(text)} is not a number between 0 and 1")
    return value


def rate(text: str) -> float:
    """Parse a learning rate."""
    value = _number(text)
    if value is None or not 0 < value <= 0.1:
        cause = "is not a learning rate (above 0 and at most 0.1)"
        raise argparse.ArgumentTypeError(f"{_shown(text)} {cause}")
    return value


def file_to_write(*suffixes: str) -> Callable[[str], Path]:
    """Return the type of files that are replaced: named as such, as another may be somebody's."""

    def parse(text: str) -> Path:
        path = Path(text)
        if path.suffix.lower() not in (*suffixes, ""):
            asked = " or ".join(suffixes)
            raise argparse.ArgumentTypeError(f"{_shown(text)} does not end in {asked}")
        return path

    return parse


def add_names(
    parser: argparse.ArgumentParser, option: str, help: str, default: Sequence[str] = ()
) -> None:
    """Add an option for a name, or several between commas, that may be given more than once.

    Its value holds the arguments as they were given: which commas belong to a name, only who knows
    the names can tell (``simulation.source_vertebrae.chosen``).
    """
    again = "may be given again"
    said = f"{help[:-1]}; {again})" if help.endswith(")") else f"{help} ({again})"
    parser.add_argument(
        option, action=_AddName, type=_names, default=default, metavar="A,B", help=said
    )


class _AddName(argparse.Action):
    """Collect arguments in a tuple, in place of the default."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        before = getattr(namespace, self.dest)
        given = () if before is self.default else before
        setattr(namespace, self.dest, (*given, values))


def _names(text: str) -> str:
    between_commas(text)
    return text.strip()


def between_commas(text: str) -> tuple[str, ...]:
    """Parse what stands between commas, at least one word."""
    found = tuple(word.strip() for word in text.split(",") if word.strip())
    if not found:
        raise argparse.ArgumentTypeError(f"{_shown(text)} contains no name")
    return found


def levels(text: str) -> tuple[str, ...]:
    """Parse vertebral levels between commas, at least one."""
    from ..anatomy.label_conventions import unknown_level

    found = tuple(dict.fromkeys(word.strip().upper() for word in text.split(",") if word.strip()))
    if not found:
        raise argparse.ArgumentTypeError(f"{_shown(text)} contains no vertebral level")
    if cause := unknown_level(found):
        raise argparse.ArgumentTypeError(cause)
    return found


def add_hidden(parser: argparse.ArgumentParser, old: str, new: str, **options: Any) -> None:
    """Accept the old spelling of an option without showing it in the help."""
    name = new.removeprefix("--").replace("-", "_")
    hidden = argparse.SUPPRESS
    parser.add_argument(old, dest=name, default=hidden, help=hidden, **options)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
