"""What a command of ``hideseekseg`` is, and how it may end."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

OK, FAILED, BAD_INPUT, STOPPED = 0, 1, 2, 130


@dataclass(frozen=True)
class Command:
    """A word after ``hideseekseg``; ``run`` returns the exit status."""

    name: str
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
