"""A review of a whole spine as the app saves one: flags, vertebrae left out, no evidence.

``python -m helpers.whole_spine PATH`` writes it, in a process of its own: a scene, once opened, is
the whole process's.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from hideseekseg.benchmark.responsiveness import GRID, _candidate
from hideseekseg.findings import Status, VertebraFinding
from hideseekseg.imaging.volume import Volume

PARTS = {"C": 7, "T": 12, "L": 5}
LEVELS = tuple(f"{part}{n}" for part, last in PARTS.items() for n in range(1, last + 1))
COUNT = 48
FLAG = "unlike the vertebrae that the weights were trained on: look yourself"
NAME = "CT 胸部単純 <b>fett</b> עמוד השדרה & Beckenübersicht mit Kontrastmittel"


def write_scene(path: Path, cache: Path) -> None:
    """Each third level has a flag, two are left out; one finding of each type on the others."""
    from hideseekseg.review.review import Review
    from hideseekseg.scene.import_data import addCt
    from hideseekseg.scene.results import Results
    from hideseekseg.scene.review_storage import store
    from hideseekseg.web.slicer_scene import open_scene, save_scene

    opened = open_scene(cache)
    array = np.random.default_rng(1).normal(200, 60, GRID.shape).astype(np.int16)
    ct = addCt(Volume(array, GRID, "CT"), NAME)
    results, review = Results.create(ct, None, {"weights": "none"}), Review(0.2)
    for number, level in enumerate(LEVELS):
        finding = VertebraFinding(
            level, Status.NOT_ANALYSED, reason="it touches the border of the CT"
        )
        if level not in ("C1", "L5"):
            found = tuple(_candidate(level, n, COUNT) for n in range(number, COUNT, len(LEVELS)))
            flags = (FLAG,) if number % 3 == 0 else ()
            finding = VertebraFinding(
                level, Status.FINDINGS, p_malignant=0.9, candidates=found, flags=flags
            )
        review.add_vertebra(finding)
        results.addVertebra(finding)
    results.apply(review)
    store(results.node, review)
    save_scene(path)
    del opened


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        write_scene(Path(sys.argv[1]), Path(made))
