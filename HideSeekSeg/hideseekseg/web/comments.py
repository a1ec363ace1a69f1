"""Comments typed in the page: each goes to the finding and the review that it was typed for.

The page is later than the session, and several tabs show one session: what is typed may come when
another case, scan or result is open already.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ..errors import UserError
from ..scene.review_storage import store
from ..ui.review_session import ReviewSession
from .page import PageState, ReviewPage
from .work_list import CaseDesk

KEPT = "Your comment is kept with {name}, where it was typed."
RETURNED = "This comment was not kept, as its review is closed{why}. It was: “{text}”"


class Comments:
    """Takes the comments of the page.

    ``while_loading`` are the reviews that were commented on while another scan was read in their
    place: whoever takes them away keeps a copy.
    """

    def __init__(
        self,
        page: PageState,
        reviewing: ReviewPage,
        desk: CaseDesk | None,
        keep: Callable[[], None],
    ) -> None:
        """``keep`` saves the reviews of the scene."""
        self._page, self._reviewing, self._desk, self._keep = page, reviewing, desk, keep
        self._cases: dict[int, str] = {}
        self._heard: deque[str] = deque(maxlen=100)
        self.while_loading: list[ReviewSession] = []

    def show_case(self, name: str) -> None:
        """Take down that the review that the page shows now is of this case."""
        self._cases[self._page.get("opened")] = name

    def take(
        self, text: str, identity: str = "", opened: int | None = None, sending: str = ""
    ) -> None:
        """Comment on a finding, the chosen one if none is named.

        ``opened`` is the number of the review that the page showed when the words were begun.  If
        it is not open any more, its results or its case keep them; where neither can, they are
        told, so that the reader still has them.

        ``sending`` is a name that the page gave to these words as it sent them.  A page that goes
        sends once more what was not answered yet: by then it may have been heard, and undone.
        """
        if sending in self._heard:
            return
        if sending:
            self._heard.append(sending)
        review = self._reviewing.controller
        case, known = self._cases.get(opened or 0, ""), opened in (None, self._page.get("opened"))
        same = case and self._desk is not None and case == self._desk.current
        if review.session is not None and (known or same):
            review.comment(text, identity)
            if self._page.get("loading"):  # the review may go before it is saved by itself
                review.flush()
                self.while_loading.append(review.session)
            return
        there = self._reviewing.of_number(opened or 0)
        if there is not None:
            self._comment_on_results(there, text, identity)
        elif case and self._desk is not None:
            self._comment_on_case(self._desk, case, text, identity)
        else:
            self._return(text)

    def _comment_on_results(self, work: ReviewSession, text: str, identity: str) -> None:
        """Comment on results of the scene that are not shown."""
        item = next((item for item in work.review.items if item.id == identity), None)
        if item is None:
            self._return(text)
            return
        work.review.comment(identity, text)
        work.results.apply(work.review)
        store(work.results.node, work.review)
        self._keep()
        self._page.say(KEPT.format(name=f"{item.name} of “{work.results.node.GetName()}”"))

    def _comment_on_case(self, desk: CaseDesk, case: str, text: str, identity: str) -> None:
        try:
            name = desk.comment(case, text, identity)
        except (UserError, OSError) as error:
            self._return(text, f": {error}")
        else:
            self._page.say(KEPT.format(name=f"{name} of {case}"))

    def _return(self, text: str, why: str = "") -> None:
        if text.strip():
            self._page.say(RETURNED.format(text=text.strip(), why=why), "warning")
