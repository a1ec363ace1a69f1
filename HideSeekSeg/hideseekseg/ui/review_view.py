"""What a window must draw of a review: the panel and the browser each do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from ..review.burden import Burden
from ..review.review import Filter, Item, VertebraState

Kind = Literal["info", "warning", "error"]
Picture = Literal["ct", "healthy", "difference"]


@dataclass(frozen=True)
class ReviewTexts:
    """Everything that is said in words, and which steps can be taken."""

    summary: str = ""
    counts: str = ""
    detail: str = ""
    comment: str = ""
    quiet: str = ""
    can_undo: bool = False
    can_redo: bool = False
    undo: str = ""  # the step that each of them takes
    redo: str = ""
    not_kept: str = ""  # why a crash would lose what was said


class ReviewView(Protocol):
    """What a window must draw of a review; it decides nothing."""

    def draw_review(self, shown: bool) -> None:
        """Show or hide the whole review."""

    def draw_rows(self, items: Sequence[Item], shown: Sequence[str]) -> None:
        """List these candidates anew, those with an id in ``shown`` visible."""

    def draw_items(self, items: Iterable[Item]) -> None:
        """Write the rows of these candidates again."""

    def draw_shown(self, shown: Sequence[str]) -> None:
        """Show the rows with these ids and hide the others."""

    def draw_chosen(self, item: Item | None) -> None:
        """Mark the row of this candidate, or none; its evidence follows."""

    def draw_vertebrae(self, states: Sequence[VertebraState]) -> None:
        """List all vertebrae, from the head down, with state, P(malignant) and flags."""

    def draw_level(self, level: str) -> None:
        """Mark the row of this vertebra, or none."""

    def draw_burden(self, rows: Sequence[Burden], heading: str) -> None:
        """Show the lesion burden by level and in total."""

    def draw_results(self, names: Mapping[str, str], chosen: str) -> None:
        """Offer the results of a CT, name by node ID, the latest last; ``chosen`` is an ID."""

    def draw_texts(self, said: ReviewTexts) -> None:
        """Write all labels and enable the buttons that can be pressed."""

    def draw_threshold(self, value: float) -> None:
        """Move the slider."""

    def draw_levels(self, found: Sequence[str], analysed: Sequence[str]) -> None:
        """Offer levels with candidates for the filter, analysed ones for a missed lesion."""

    def draw_filter(self, wanted: Filter) -> None:
        """Show what the list is narrowed to."""

    def draw_picture(self, picture: Picture) -> None:
        """Show which picture the views show."""

    def draw_outlines(self, shown: bool) -> None:
        """Show whether outlines are drawn."""

    def draw_outdated(self, levels: Sequence[str], again: Sequence[str]) -> None:
        """Say whose findings are out of date, and which levels can be run again; or nothing."""

    def draw_put_back(self, offered: bool) -> None:
        """Offer to put removed results back, or no longer."""

    def take_comment(self) -> str | None:
        """Return the comment that is being typed, once; None where nothing was typed."""

    def say(self, text: str, kind: Kind = "info") -> None:
        """Show one message in place of the last one; an empty text removes it."""

    def call_later(self, seconds: float, action: Callable[[], None]) -> Callable[[], None]:
        """Call ``action`` once after a while; return what cancels that."""
