"""Texts in the reader's language, where Slicer's translations are at hand."""

from __future__ import annotations

try:
    from slicer.i18n import tr as _
except ImportError:  # outside the desktop there are none

    def _(text: str) -> str:
        return text


__all__ = ["_"]
