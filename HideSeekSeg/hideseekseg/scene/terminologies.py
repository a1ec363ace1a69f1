"""The single vertebrae for Slicer's terminology selector, whose own list has "Vertebra" alone."""

from __future__ import annotations

from pathlib import Path

import slicer

# Beside the library, as the module's other resources.
FILE = Path(__file__).resolve().parents[2] / "Resources" / "Terminologies" / "vertebrae.term.json"


def loadVertebrae() -> str:
    """Add the vertebrae to Slicer's regions; the list's name, empty where Slicer refused it."""
    logic = slicer.modules.terminologies.logic()
    return str(logic.LoadRegionContextFromFile(str(FILE)))
