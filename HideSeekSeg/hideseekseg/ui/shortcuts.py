"""Single keys for the review, the same in every window; each belongs to a button that shows it."""

from __future__ import annotations

# Action and key. Slicer's slice views take arrows, f, b, g, r, t, v, s and brackets; Segment Editor
# takes digits, q, w, z, y, i and space: none of these is used.
KEYS = {
    "accept": "A",
    "reject": "X",
    "uncertain": "K",
    "previous": "P",
    "next": "N",
    "previousVertebra": "Shift+P",
    "nextVertebra": "Shift+N",
    "undo": "U",
    "redo": "Shift+U",
    "switchType": "L",
    "overlay": "O",
    "healthy": "H",
    "difference": "D",
    "missed": "M",
    "export": "E",
    "comment": "C",
}


def shown(key: str) -> str:
    """As it stands on a button."""
    return key.replace("Shift+", "⇧")
