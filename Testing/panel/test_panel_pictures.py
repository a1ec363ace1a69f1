"""A new user's walk, a picture at each stage; and how the panel looks in all kinds of windows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import SimpleITK as sitk

from desktop import Desktop
from helpers.findings import make_ct, make_grid, make_result
from helpers.panel import add_review, open_panel
from helpers.panel_pictures import NAMES, look, take
from helpers.scene import add_segmentation
from hideseekseg.imaging.reading import read_segmentation


def test_from_the_sample_to_accepted_lesions_on_disk(desktop: Desktop, tmp_path: Path) -> None:
    take(desktop, tmp_path)
    for name in NAMES:
        picture = sitk.ReadImage(str(tmp_path / name))
        assert picture.GetWidth() > 300
    names = {s.name for s in read_segmentation(tmp_path / "export" / "accepted.seg.nrrd").segments}
    assert {"T12 lytic 1", "L1 blastic 1"} <= names
    assert (tmp_path / "export" / "accepted.csv").exists()
    assert (tmp_path / "export" / "review.json").exists()


GRID = make_grid((70, 50, 50), (1.2, 1.1, 2.0))
LOW = 768  # a small screen
MENUS = 110  # pixels of it that Slicer's title, menus and tool bars take


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [420, 640])
@pytest.mark.parametrize("points", [9, 12])
def test_panel_is_usable_on_a_small_screen(
    desktop: Desktop, tmp_path: Path, points: int, width: int, dark: bool
) -> None:
    """All that a review needs is in sight, in small and large letters; a picture of each."""
    findings = make_result(GRID).vertebrae
    sure = replace(findings[0].candidates[0], p_all=0.96, p_hidden=0.12, p_alone=0.91)
    told = replace(findings[0], candidates=(sure, *findings[0].candidates[1:]))
    with look(desktop, points, dark):
        ct = add_review((told, *findings[1:]), GRID)
        mask = make_ct(GRID).array > 600
        vertebrae = add_segmentation({"vertebrae_T10": mask}, GRID.ijk_to_lps, "Vertebrae")
        with open_panel(desktop) as opened:
            desktop.window.resize(width, LOW)
            opened.panel.enter()
            opened.choose(ct, vertebrae)
            opened.ui.inputsButton.collapsed = True  # as after a run
            opened.key("A")
            opened.key("P")
            opened.rest()
            opened.picture(tmp_path / "panel.png", width)
            picture = sitk.ReadImage(str(tmp_path / "panel.png"))
            assert picture.GetWidth() == width, "the panel is wider than asked for"
            for name in ("candidatesTable", "acceptButton", "uncertainButton", "rejectButton"):
                assert bottom(opened, name) < LOW - MENUS, name
            for name in ("nextButton", "undoButton", "overlayButton", "healthyButton"):
                large = points > 9 and name in (
                    "overlayButton",
                    "healthyButton",
                )  # or by their keys
                assert large or bottom(opened, name) < LOW - (MENUS if points == 9 else 0), name


def bottom(opened: Any, name: str) -> int:
    """Lowest pixel of a widget in the panel."""
    from PySide6 import QtCore

    widget = getattr(opened.ui, name)
    return int(widget.mapTo(opened.widget, QtCore.QPoint(0, widget.height)).y())
