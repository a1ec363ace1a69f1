"""Pictures of the panel before, during and after a run of the bundled weights on the example.

``python Testing/helpers/panel_pictures.py Resources/Pictures`` draws those of the README.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from desktop import Desktop, open_desktop
from helpers.panel import Opened, open_panel
from helpers.scene import open_scene

NAMES = ("panel-before.png", "panel-during.png", "panel-after.png")


def take(desktop: Desktop, folder: Path) -> Opened:
    """Load the sample, click, review, export to ``folder / "export"``; a picture at each stage."""
    from HideSeekSegLib.logic import loadExample

    before, during, after = (folder / name for name in NAMES)
    ct, vertebrae = loadExample()
    with open_panel(desktop, program=sys.executable) as opened:
        opened.choose(ct, vertebrae)
        desktop.wait(lambda: "Looking" not in opened.ui.deviceLabel.text, 60)
        opened.ui.levelsButton.collapsed = False
        opened.picture(before)
        opened.ui.levelsButton.collapsed = True
        opened.ui.segmentButton.click()
        desktop.wait(lambda: opened.rows() or not opened.panel.running, 120)
        opened.picture(during)
        opened.wait_for_end(120)
        accept_and_reject(opened)
        opened.ui.reviewerEdit.text = "A. Reader"
        desktop.paths.append(str(folder / "export"))
        opened.key("E")
        opened.key("H")
        opened.panel.messages.clear()
        opened.picture(after)
    return opened


def accept_and_reject(opened: Opened) -> None:
    """What is true in the example is accepted, the first false finding rejected."""
    table = opened.ui.candidatesTable

    def judge(wanted: list[str], key: str) -> bool:
        """Press the key on the first seen row that begins so; whether there was one."""
        for row in range(table.rowCount):
            cells = [table.item(row, column).text() for column in range(table.columnCount)]
            if (
                not table.isRowHidden(row)
                and cells[5] == "to review"
                and cells[: len(wanted)] == wanted
            ):
                table.selectRow(row)
                opened.key(key)
                return True
        return False

    for true in (["T12", "lytic"], ["L1", "blastic"]):
        assert judge(true, "A")
    judge([], "X")


@contextmanager
def look(desktop: Desktop, points: int, dark: bool) -> Iterator[None]:
    """The desktop in another size of letters, light or dark."""
    from PySide6 import QtGui, QtWidgets

    app = QtWidgets.QApplication.instance()
    assert isinstance(app, QtWidgets.QApplication)
    font, palette = QtGui.QFont(app.font()), QtGui.QPalette(app.palette())
    other, roles = QtGui.QFont(font), QtGui.QPalette.ColorRole
    other.setPointSize(points)
    colours = QtGui.QPalette(QtGui.QColor("#2d2d2d" if dark else "#efefef"))
    if dark:
        colours.setColor(roles.Base, QtGui.QColor("#1e1e1e"))
        colours.setColor(roles.AlternateBase, QtGui.QColor("#262626"))
        for role in (roles.Text, roles.WindowText, roles.ButtonText):
            colours.setColor(role, QtGui.QColor("#dddddd"))
    app.setFont(other)
    app.setPalette(colours)
    try:
        yield
    finally:
        app.setFont(font)
        app.setPalette(palette)
        desktop.settle()


if __name__ == "__main__":
    with open_scene() as scene, open_desktop(scene) as shown:
        take(shown, Path(sys.argv[1]))
