"""A review of a whole spine as the app saves one: flags, vertebrae left out, no evidence.

``python -m helpers.whole_spine PATH`` writes it, in a process of its own: a scene, once opened, is
the whole process's.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hideseekseg.benchmark.responsiveness import candidate_at, write_scene
from hideseekseg.findings import Status, VertebraFinding

PARTS = {"C": 7, "T": 12, "L": 5}
LEVELS = tuple(f"{part}{n}" for part, last in PARTS.items() for n in range(1, last + 1))
COUNT = 48
FLAG = "unlike the vertebrae that the weights were trained on: look yourself"
NAME = "CT 胸部単純 <b>fett</b> עמוד השדרה & Beckenübersicht mit Kontrastmittel"


def findings() -> Iterator[VertebraFinding]:
    """Each third level has a flag, two are left out; one finding of each type on the others."""
    for number, level in enumerate(LEVELS):
        if level in ("C1", "L5"):
            yield VertebraFinding(
                level, Status.NOT_ANALYSED, reason="it touches the border of the CT"
            )
            continue
        found = tuple(candidate_at(level, n, COUNT) for n in range(number, COUNT, len(LEVELS)))
        flags = (FLAG,) if number % 3 == 0 else ()
        yield VertebraFinding(
            level, Status.FINDINGS, p_malignant=0.9, candidates=found, flags=flags
        )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        write_scene(Path(sys.argv[1]), NAME, 0.2, findings(), Path(made))
