"""The subcommand ``completion``: a script for the shell, made of the parser itself."""

from __future__ import annotations

import argparse

from .arguments import OK

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
