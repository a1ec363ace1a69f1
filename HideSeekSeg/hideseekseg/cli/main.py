"""The command line: parse, call, print; and the shell's completion, made of the parser itself.

Only argparse is imported here; what a subcommand needs is imported when it runs, so that ``--help``
answers at once.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from .. import __version__
from ..events import Failed, to_line
from ..plain_data import first_line, name_fault
from . import app, benchmark, cohort, export, pacs, segment, training, weights
from .arguments import BAD_INPUT, FAILED, OK, STOPPED, Command, HelpFormatter, Parser
from .streams import lasting_streams

# Else Python would look for garbage among torch's half a million objects before it ends: half a
# second of a processor.
atexit.register(gc.freeze)

SHELLS = ("bash", "zsh")
# Bash completes what it is given; zsh takes the same script by its own emulation.
_SCRIPT = """\
_hideseekseg() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" words=""
    case "${{COMP_WORDS[1]}} $before" in
{choices}    esac
    if [ -z "$words" ] && [ "$COMP_CWORD" -eq 1 ]; then
        words="{commands}"
    elif [ -z "$words" ] && [[ "$current" == -* ]]; then
        case "${{COMP_WORDS[1]}}" in
{options}        esac
    fi
    COMPREPLY=()
    if [ -n "$words" ]; then
        COMPREPLY=($(compgen -W "$words" -- "$current"))
    fi
}}
complete -o default -F _hideseekseg hideseekseg
"""


def completion_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the shell, and say how the script is used."""
    parser.add_argument("shell", choices=SHELLS)
    parser.epilog = 'in ~/.bashrc: eval "$(hideseekseg completion bash)"; in ~/.zshrc with zsh'


def completion(parser: argparse.ArgumentParser, shell: str) -> int:
    """Print the script of a shell."""
    found = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    choices, options = "", ""
    for name, command in found.choices.items():
        shown = [a for a in command._actions if a.help != argparse.SUPPRESS]
        words = " ".join(word for action in shown for word in action.option_strings)
        options += f'            {name}) words="{words}" ;;\n'
        for action in shown:
            if action.choices is not None:
                given = "|".join(f'"{name} {word}"' for word in action.option_strings)
                given = given or f'"{name} {name}"'
                listed = " ".join(map(str, action.choices))
                choices += f'        {given}) words="{listed}" ;;\n'
    if shell == "zsh":
        print("autoload -U +X bashcompinit && bashcompinit")
    print(_SCRIPT.format(choices=choices, commands=" ".join(found.choices), options=options))
    return OK


LEAST_ADDRESS_SPACE = 3 << 29  # bytes: to load the libraries, before any image
PACKAGE = __package__.partition(".")[0] + "."

# What the loaders of libraries say where memory is short.
_MEMORY = re.compile(r"failed to map segment|[Cc]annot allocate memory|paging file")

COMMANDS: tuple[Command, ...] = (
    *segment.COMMANDS,
    *export.COMMANDS,
    *pacs.COMMANDS,
    *cohort.COMMANDS,
    *app.COMMANDS,
    *training.COMMANDS,
    *benchmark.COMMANDS,
    *weights.COMMANDS,
    Command(
        "completion",
        "print a script that completes commands and options in a shell",
        completion_arguments,
        lambda args: completion(_parser(), args.shell),
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return 0, 1 (failed), 2 (bad input) or 130 (stopped by Ctrl-C)."""
    with lasting_streams() as lost:
        status = _run(arguments)
        if lost():
            print(f"hideseekseg: standard output cannot be written: {lost()}", file=sys.stderr)
            status = status or FAILED
    return status


def _run(arguments: Sequence[str] | None) -> int:
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    parser = _parser()
    args = parser.parse_args(arguments)
    if fault := _unreadable_name(vars(args).values()):
        parser.error(fault)
    # Threads that wait busily for each other are ten times slower on a machine with other work, and
    # those of numpy's linear algebra have too little to do to be worth it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Imports make half a million objects, among which Python would look for garbage all the time.
    gc.set_threshold(50_000, 20, 50)
    try:
        _check_address_space()
        status = int(args.run(args))
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("hideseekseg: stopped", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:  # whoever read our output is gone; Python would complain at its exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").startswith(PACKAGE):
            error = _missing_part(args.command)
        return _fail(error, getattr(args, "json_lines", False))


def _unreadable_name(values: Iterable[object]) -> str:
    """Return what is wrong with the name of a file that is given, empty where nothing is.

    Libraries end the process over it, and results say where files lie: the working folder counts.
    """
    try:
        names = [str(Path.cwd())]
    except OSError:  # it was removed
        names = []
    for value in values:
        names += map(str, value) if isinstance(value, (list, tuple)) else (str(value),)
    return next((f"{name}: {fault}" for name in names if (fault := name_fault(name))), "")


def _check_address_space() -> None:
    """Refuse less than the libraries need at once: these end the process without a cause."""
    if os.name == "nt":
        return
    import resource

    allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
    if allowed != resource.RLIM_INFINITY and allowed < LEAST_ADDRESS_SPACE:
        needed = LEAST_ADDRESS_SPACE >> 20
        raise MemoryError(
            f"needs {needed} MB of address space, {allowed >> 20} MB are allowed (ulimit -v)"
        )


def _missing_part(command: str) -> Exception:
    """Return the error for a subcommand whose files Slicer's package leaves out."""
    from ..errors import InputError

    cause = "is not part of this installation (Slicer's package): pip install hideseekseg has it"
    return InputError(command, cause)


def _fail(error: Exception, json_lines: bool) -> int:
    """Print a known failure in one line; a bug keeps its traceback."""
    from ..errors import UserError

    if isinstance(error, ImportError) and _MEMORY.search(str(error)):
        error = MemoryError(f"too little memory to load a library: {first_line(error)}")
    if isinstance(error, UserError):
        failed, status = Failed(error.cause, error.path), BAD_INPUT
    elif isinstance(error, MemoryError):
        failed, status = Failed(str(error) or "out of memory"), FAILED
    else:
        failed, status = Failed(f"{type(error).__name__}: {error}"), FAILED
    if json_lines:
        print(to_line(failed), flush=True)
    if not isinstance(error, (UserError, MemoryError)):
        raise error
    print(f"hideseekseg: {error}", file=sys.stderr)
    return status


def _parser() -> Parser:
    parser = Parser(
        "hideseekseg",
        description="Finds vertebral metastases in CT by Hide-and-Seek Attribution. For research;"
        " not a medical device.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        own = commands.add_parser(
            command.name,
            help=command.help,
            description=command.help,
            formatter_class=HelpFormatter,
        )
        command.add_arguments(own)
        own.set_defaults(run=command.run, command=command.name)
    return parser
