"""What another user may see: permissions do not bind root, as whom containers run tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")


@contextmanager
def as_another_user(folder: Path) -> Iterator[None]:
    """Be a user who may look into ``folder``, as far as its own content allows that."""
    root = os.geteuid() == 0
    for parent in [folder, *folder.parents] if root else []:
        if parent.owner() == "root" and "pytest" in str(parent):
            parent.chmod(parent.stat().st_mode | 0o055)
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@contextmanager
def closed(folder: Path, mode: int = 0) -> Iterator[None]:
    """Let nobody look into a folder."""
    folder.chmod(mode)
    try:
        yield
    finally:
        folder.chmod(0o755)
