"""One review in both windows: what a reader does and sees, in the panel and in the page's state."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from desktop import Desktop
from helpers.panel import Opened, open_panel

PAGE = Path(__file__).resolve().parents[2] / "HideSeekSeg/hideseekseg/web/static/page.js"


class PanelReview:
    """The panel, by its keys and widgets."""

    def __init__(self, opened: Opened) -> None:
        self.opened, self.ui = opened, opened.ui
        self.controller = opened.panel.review

    def press(self, action: str) -> None:
        from hideseekseg.ui.texts import KEYS

        self.opened.key(KEYS[action])

    def click(self, row: int) -> None:
        shown = [n for n in range(self.table.rowCount) if not self.table.isRowHidden(n)]
        self.table.selectRow(shown[row])

    def slide(self, value: float) -> None:
        self.ui.thresholdSlider.value = value

    def filter(self, field: str, value: str) -> None:
        from hideseekseg.ui.texts import VERDICTS

        box = getattr(self.ui, f"{field}Filter")
        text = VERDICTS[value] if field == "verdict" and value else value
        box.setCurrentIndex(box.findText(text) if text else 0)

    def comment(self, text: str) -> None:
        self.press("comment")
        self.ui.commentEdit.clear()
        for letter in text:
            self.opened.desktop.key(self.ui.commentEdit, letter)
        self.opened.desktop.key(self.ui.commentEdit, "Return")

    def put_back(self) -> None:
        self.ui.putBackButton.click()

    def sort(self, order: str) -> None:
        from hideseekseg.ui.texts import ORDER_OF_COLUMN

        self.table.horizontalHeader().sectionClicked.emit(ORDER_OF_COLUMN.index(order))
        self.opened.desktop.settle()

    def click_vertebra(self, row: int) -> None:
        self.ui.vertebraeTable.selectRow(row)

    def reject_as(self, reason: str) -> None:
        [action] = [one for one in self.ui.reasonButton.menu().actions() if one.text == reason]
        action.trigger()
        self.opened.desktop.settle()

    def choose_results(self, number: int) -> None:
        self.ui.resultsSelector.setCurrentIndex(number)
        self.ui.resultsSelector.activated.emit(number)
        self.opened.desktop.settle()

    @property
    def vertebrae(self) -> list[list[str]]:
        return table_of(self.ui.vertebraeTable)

    @property
    def burden(self) -> list[list[str]]:
        return table_of(self.ui.burdenTable)

    @property
    def results(self) -> list[str]:
        box = self.ui.resultsSelector
        return [box.itemText(n) for n in range(box.count)]

    def rest(self) -> None:
        self.opened.rest()

    @property
    def table(self) -> Any:
        return self.ui.candidatesTable

    @property
    def rows(self) -> list[list[str]]:
        return self.opened.rows()

    @property
    def chosen(self) -> int:
        """Number of the chosen row among those that are seen, -1 without one."""
        row = self.opened.row()
        hidden = sum(self.table.isRowHidden(n) for n in range(max(row, 0)))
        return row - hidden if row >= 0 else -1

    @property
    def words(self) -> dict[str, str]:
        """What is said, by its name in the page's state."""
        ui = self.ui
        return {
            "counts": ui.countsLabel.text,
            "summary": ui.summaryLabel.text,
            "detail": ui.detailLabel.text,
            "quiet": ui.quietLabel.text,
            "comment": ui.commentEdit.text,
            "message": self.opened.message,
            **{way: self._step(way) for way in ("undo", "redo")},
        }

    def _step(self, way: str) -> str:
        """What a button says that it will take back, or do again."""
        return str(getattr(self.ui, f"{way}Button").toolTip).partition("\n")[2]

    @property
    def threshold(self) -> float:
        return float(self.ui.thresholdSlider.value)

    @property
    def offered(self) -> bool:
        """Whether removed results can be put back."""
        return bool(self.ui.putBackButton.isVisibleTo(self.opened.widget))

    @property
    def picture(self) -> str:
        if self.ui.healthyButton.checked:
            return "healthy"
        return "difference" if self.ui.differenceButton.checked else "ct"


def table_of(table: Any) -> list[list[str]]:
    """What a table says, row by row."""
    return [
        [table.item(row, column).text() for column in range(table.columnCount)]
        for row in range(table.rowCount)
    ]


class Page:
    """The state that the browser's tabs share, without a server."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def show(self, **values: Any) -> None:
        self.state.update(values)

    def say(self, text: str, kind: str = "info") -> None:
        self.state["message"] = text


class Windows:
    """Slicer's views in the page: they have nodes of their own here."""

    def close_up(self) -> None: ...
    def mark(self, ras: tuple[float, float, float]) -> None: ...


class PageReview:
    """The page's state; what is pressed is read from the page's own script."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        from hideseekseg.web.page import ReviewPage

        self.page, self._loop = Page(), loop
        self._view = ReviewPage(self.page, Windows())  # type: ignore[arg-type]
        self.controller = self._view.controller

    def do(self, name: str, *values: Any) -> None:
        async def inside() -> None:
            self._view.actions[name](*values)

        self._loop.run_until_complete(inside())

    def show(self, session: Any) -> None:
        async def inside() -> None:
            self.controller.show(session)

        self._loop.run_until_complete(inside())

    def press(self, action: str) -> None:
        found = re.search(rf"^    {action}: \[(.*)\],$", PAGE.read_text("utf-8"), re.MULTILINE)
        assert found, f"the page asks for nothing by {action}"
        words = [word.strip().strip('"') for word in found[1].split(",")]
        values = {"true": True, "false": False, "1": 1, "-1": -1}
        self.do(words[0], *(values.get(word, word) for word in words[1:]))

    def click(self, row: int) -> None:
        self.do("choose", self.page.state["shown"][row])

    def slide(self, value: float) -> None:
        self.do("threshold", value)

    def filter(self, field: str, value: str) -> None:
        self.do("filter", field, value)

    def comment(self, text: str) -> None:
        self.do("comment", text, self.page.state["current"])

    def sort(self, order: str) -> None:
        self.do("sort", order)

    def click_vertebra(self, row: int) -> None:
        self.do("vertebra", self.page.state["vertebrae_rows"][row]["level"])

    def reject_as(self, reason: str) -> None:
        self.do("judge", "rejected", reason)

    def choose_results(self, number: int) -> None:
        self.do("results", self.page.state["results"][number]["id"])

    @property
    def vertebrae(self) -> list[list[str]]:
        return [row["cells"] for row in self.page.state["vertebrae_rows"]]

    @property
    def burden(self) -> list[list[str]]:
        return list(self.page.state["burden"])

    @property
    def results(self) -> list[str]:
        return [one["name"] for one in self.page.state["results"]]

    def put_back(self) -> None:
        async def inside() -> None:
            self.controller.put_back()

        self._loop.run_until_complete(inside())

    def rest(self) -> None:
        self._loop.run_until_complete(asyncio.sleep(0.25))

    @property
    def rows(self) -> list[list[str]]:
        return [self.page.state["rows"][x]["cells"] for x in self.page.state["shown"]]

    @property
    def chosen(self) -> int:
        shown, current = self.page.state["shown"], self.page.state["current"]
        return shown.index(current) if current else -1

    @property
    def words(self) -> dict[str, str]:
        return self.page.state

    @property
    def threshold(self) -> float:
        return float(self.page.state["threshold"])

    @property
    def offered(self) -> bool:
        return bool(self.page.state["put_back"])

    @property
    def picture(self) -> str:
        return str(self.page.state["picture"])


@contextmanager
def open_review(window: str, desktop: Desktop, ct: Any) -> Iterator[Any]:
    """The latest review of a CT in the scene, in the "panel" or the "browser"."""
    from hideseekseg.ui.review_session import latest

    if window == "panel":
        with open_panel(desktop) as opened:
            opened.ui.ctSelector.setCurrentNode(ct)
            yield PanelReview(opened)
        return
    loop = asyncio.new_event_loop()
    review = PageReview(loop)
    session = latest(lambda text: None, ct)
    if session is not None:
        review.show(session)
    yield review
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
