"""The review without a toolkit: what is listed, chosen and shown, and what the reader does.

The panel and the browser draw what they are told (``ReviewView``) and forward what is pressed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ..anatomy.label_conventions import LEVELS
from ..errors import SceneError
from ..findings import Evidence, LesionType
from ..output.figures.drawing import difference_limit, is_hounsfield
from ..review.burden import Burden
from ..review.items import ORDERS, shared_box
from ..review.review import REASONS, VERDICTS, Filter, Item, Reason, Review, Verdict, VertebraState
from ..scene.export_inputs import LevelRow
from ..scene.results import Results
from . import texts
from .changed_levels import changes_of
from .level_choices import LevelChanges, in_order
from .own_segments import strayed, take_over
from .review_session import ReviewSession, remember, sessions
from .review_view import Kind, Picture, ReviewTexts, ReviewView
from .texts import _

SETTLE_SECONDS = 0.15  # the scene follows once the reader rests


class ReviewController:
    """One review at a time: its list follows the reader at once, its scene when the reader rests.

    A view calls ``clear`` once it can draw. Slicer's views are touched only between ``enter`` and
    ``leave``. Ids that are not known choose nothing; values that make no sense are ignored. What is
    typed as a comment is kept before anything else is done.
    """

    def __init__(self, view: ReviewView, entered: bool = False) -> None:
        self._view, self._entered = view, entered
        self.session: ReviewSession | None = None
        self.wanted = Filter()
        self.picture: Picture = "ct"
        self._current = ""
        self._seen: Item | None = None  # the chosen candidate as it was listed last
        self._level = ""
        self._drawn: tuple[list[VertebraState], list[Burden]] = ([], [])
        self._at_work = False
        self._not_kept = ""
        self._astray = ""  # what was said of a lesion that is drawn beside its vertebra
        self._outlines = True
        self._lost: tuple[Review, Results] | None = None
        self._offered: tuple[ReviewSession, ...] = ()
        self._evidence: tuple[str, Evidence | None] = ("", None)
        self._cancel_settling: Callable[[], None] | None = None
        self.flushed: Callable[[], None] = lambda: None  # hears when the scene is up to date
        # What the segments of a segmentation are, as the reader says; None where the window's is
        # another one.
        self.level_rows: Callable[[Any], Sequence[LevelRow] | None] = lambda node: None

    # What there is to review.

    @property
    def entered(self) -> bool:
        """Return whether the window of the review is shown."""
        return self._entered

    @property
    def review(self) -> Review | None:
        return self.session.review if self.session is not None else None

    @property
    def results(self) -> Results | None:
        return self.session.results if self.session is not None else None

    @property
    def current(self) -> Item | None:
        """The chosen candidate."""
        return self._item(self._current)

    @property
    def level(self) -> str:
        """The level of the chosen candidate or vertebra."""
        return self._level

    @property
    def shown(self) -> list[str]:
        """Ids of the candidates that are listed, from the top."""
        return [x.id for x in self.review.shown(self.wanted)] if self.review is not None else []

    def show(self, session: ReviewSession) -> None:
        """Open a review with its best candidate."""
        self.clear()
        self.session = session
        remember(session)
        self._sync(session)
        if self._entered:
            session.views.take()
        self.renew()
        self._view.draw_review(True)
        self.begin()
        self.flush()
        self._draw_results()
        self.check_levels()

    def clear(self) -> None:
        """Close the review: the scene was closed, or a new run begins."""
        self.commit_comment()
        if self._cancel_settling is not None:
            self.flush()
        if self.session is not None:
            self.session.views.release()
        self.session, self._current, self.picture, self.wanted = None, "", "ct", Filter()
        self._level, self._drawn = "", ([], [])
        self._at_work, self._outlines, self._evidence = False, True, ("", None)
        self._astray = ""
        view = self._view
        view.draw_review(False)
        view.draw_rows((), ())
        view.draw_filter(self.wanted)
        view.draw_picture("ct")
        view.draw_outlines(True)
        view.draw_chosen(None)
        view.draw_vertebrae(())
        view.draw_level("")
        view.draw_burden((), "")
        self._offered = ()
        view.draw_results({}, "")
        view.draw_outdated((), ())
        view.draw_texts(ReviewTexts())

    def renew(self) -> None:
        """List everything anew, as after another vertebra; what is chosen stays chosen."""
        if self.review is None:
            return
        found = {item.level for item in self.review.items}
        if self.wanted.level not in found:
            self.wanted = replace(self.wanted, level="")
        analysed = [level for level in LEVELS if level in self.review.vertebrae]
        self._evidence = ("", None)
        self._view.draw_levels([level for level in LEVELS if level in found], analysed)
        self._view.draw_filter(self.wanted)
        self._view.draw_threshold(self.review.threshold)
        self._draw_rows()
        self._draw_vertebrae()
        self._listed()
        self._seen = self.current

    def joined(self) -> None:
        """List what a run added to the review; a finding is chosen no more that is another now."""
        seen = self._seen
        self.renew()
        item = self.current
        drawn = item is not None and seen is not None and min(item.volume_mm3, seen.volume_mm3) > 0
        if drawn and item and seen and shared_box(item.box_lps, seen.box_lps) == 0:
            self._choose("")  # its id is that of another place now
        self.begin()

    def check_levels(self) -> None:
        """Flag findings of vertebrae whose level was corrected since the run."""
        if self.session is None or not self.session.alive:
            return
        review, changes = self.session.review, self._changes(self.session)
        flagged = changes.outdated & review.vertebrae.keys()
        if review.set_outdated(flagged):
            self.renew()
            self.flush()
        self._view.draw_outdated(in_order(flagged), changes.again)

    def run_with(self, level: str) -> tuple[str, ...]:
        """Return the levels to run again with one: also those that it changed places with."""
        return self._changes(self.session).together(level) if self.session is not None else ()

    def _changes(self, session: ReviewSession) -> LevelChanges:
        return changes_of(session, self.level_rows(session.results.segmentationNode))

    def begin(self) -> None:
        """Choose the best candidate where none is chosen."""
        if not self._current and self.shown:
            self._choose(self.shown[0])

    def settle(self) -> None:
        """End of a run: choose the best candidate, unless the reader is at work already."""
        self.commit_comment()
        if not self._at_work and self.shown:
            self._choose(self.shown[0])
        self.flush()

    # The window.

    def enter(self) -> None:
        """Take the views for the review, and take over edits made elsewhere."""
        self._entered = True
        session = self.session
        if session is None:
            return
        session.views.take()
        if self._sync(session):
            self.renew()
        self.flush()

    def leave(self) -> None:
        """Another window is shown: the views are the user's again."""
        self.commit_comment()
        self.flush()
        self.show_picture("ct")
        self._entered = False
        if self.session is not None:
            self.session.isolate("")
            self.session.views.release()

    def flush(self) -> None:
        """Bring the scene up to date: visibility, tags and the stored review."""
        self._stop_settling()
        if self.session is not None:
            self.session.flush(self._current if self._entered else "")
            self._draw_vertebrae()
            self.flushed()

    # What the reader does.

    def choose(self, identity: str) -> None:
        """Choose a candidate, which all views go to and show alone; an empty id: none."""
        self._begin_action()
        self._choose(identity)

    def judge(self, verdict: str, reason: str = "", seen: str = "") -> None:
        """Give the chosen candidate a verdict, and go on to the next that waits for one.

        ``reason`` is one of ``REASONS``: what a rejected candidate is instead.  ``seen`` is the
        candidate that the reader saw, where the window can be later than the review: no other one
        is judged.
        """
        item = self.current
        known = verdict in VERDICTS and reason in REASONS
        if self.session is None or item is None or not known or not self._was_seen(item, seen):
            return
        self._begin_action()
        given: Verdict = next(v for v in VERDICTS if v == verdict)
        why: Reason = next(r for r in REASONS if r == reason)
        following = self.session.judge(item.id, given, self.wanted, why)
        self._changed([item.id])
        if following is not None:
            self._choose(following)
        else:
            self._view.draw_chosen(self.current)

    def switch_type(self, seen: str = "") -> None:
        """Make a lytic candidate blastic, or a blastic one lytic; ``seen`` as of ``judge``."""
        item = self.current
        if self.review is not None and item is not None and self._was_seen(item, seen):
            self._begin_action()
            self._changed(self.review.switch_type(item.id))
            self._view.draw_chosen(self.current)

    def comment(self, text: str, identity: str = "") -> None:
        """Comment on a candidate, the chosen one if none is named."""
        item = self._item(identity or self._current)
        if self.review is not None and item is None:
            self._view.say(texts.NOT_CHOSEN, "warning")
        elif self.review is not None and item is not None:
            self._at_work = True
            self._changed(self.review.comment(item.id, text))

    def commit_comment(self) -> None:
        """Keep what is being typed."""
        text = self._view.take_comment()
        if text is not None:
            self.comment(text)

    def step(self, way: int) -> None:
        """Go to the next candidate that is listed (1) or to the one before (-1)."""
        if self.session is not None:
            self._begin_action()
            there = self.session.step(self._current, way, self.wanted)
            if there is not None:
                self._choose(there)

    def choose_vertebra(self, level: str) -> None:
        """Go to a vertebra: to its first listed candidate, or to the vertebra where it has none."""
        if self.review is None or level not in self.review.vertebrae:
            return
        self._begin_action()
        listed = (self.review.item(x) for x in self.shown)
        best = next((item.id for item in listed if item.level == level), "")
        self._choose(best, level)

    def step_vertebra(self, way: int) -> None:
        """Go to the next vertebra down (1) or up (-1), with findings or without."""
        if self.review is None:
            return
        levels = list(self.review.vertebrae)
        if self._level in levels:
            at = levels.index(self._level) + way
            if 0 <= at < len(levels):
                self.choose_vertebra(levels[at])
        elif levels:
            self.choose_vertebra(levels[0])

    def make_accepted(self) -> None:
        """Add a segmentation of the accepted lesions alone, for other modules."""
        if self.review is None or not self._alive:
            return
        self._begin_action()
        node = self.session.make_accepted() if self.session is not None else None
        if node is None:
            self._view.say(_("Nothing is accepted yet."), "warning")
            return
        text = _("“{name}” contains the accepted findings. Later verdicts do not change it.")
        self._view.say(text.format(name=node.GetName()))

    def choose_results(self, identity: str) -> None:
        """Open the review of other results of the same CT, by the ID of their node."""
        if self.results is None:
            return
        every = self._of_this_ct(lambda text: self._view.say(text, "error"))
        if identity not in every:  # another window of the same session may know an older list
            self._draw_results()
            self._view.say(_("These results are no longer in the scene."), "warning")
        elif every[identity].results.node is not self._node:
            self._begin_action()
            self.show(every[identity])

    def drop_results(self) -> None:
        """No longer offer results of this CT that have gone from the scene."""
        if not all(work.alive for work in self._offered):
            self._draw_results()

    def travel(self, forward: bool) -> None:
        """Undo, or redo, and choose the candidate concerned: the reader sees what happened."""
        if self.review is None:
            return
        self._begin_action()
        before = {item.id: item for item in self.review.items}
        step = texts.step_of(self.review, self.review.following(forward))
        ids = self.review.redo() if forward else self.review.undo()
        if ids is None:
            return
        self._view.draw_threshold(self.review.threshold)
        if len(self.review.items) != len(before):  # an added lesion went, or came again
            self._draw_rows()
        gone = before.keys() - {item.id for item in self.review.items}
        drawn = [before[x].name for x in gone if before[x].volume_mm3 > 0]
        if drawn:  # strokes are no steps: who wanted the last one back must know what went
            self._view.say(texts.undrawn(drawn[0]), "warning")
        self._changed(ids)
        if len(ids) == 1 and ids[0] in self.shown:
            self._choose(ids[0])
        elif ids and not gone:
            self._view.say(texts.travelled(step, forward), "warning")

    def set_threshold(self, value: float) -> None:
        """Show candidates that score above a value, which is clamped to 0 to 1."""
        if self.review is None or not math.isfinite(value):
            return
        self._begin_action()
        self.review.set_threshold(min(max(float(value), 0.0), 1.0))
        self._view.draw_threshold(self.review.threshold)
        self._listed()
        self._settle_later()

    def filter(self, field: str, value: str) -> None:
        """Narrow the list by level, type or verdict; an empty value ends that."""
        if field in ("level", "type", "verdict"):
            self._begin_action()
            changes: dict[str, Any] = {field: value}
            self.wanted = replace(self.wanted, **changes)
            self._view.draw_filter(self.wanted)
            self._listed()

    def sort(self, order: str) -> None:
        """Sort the list by a column of ``items.ORDERS``; a second time: the other way round."""
        if self.review is not None and order in ORDERS:
            self._begin_action()
            turned = order == self.wanted.order and not self.wanted.backwards
            self.wanted = replace(self.wanted, order=order, backwards=turned)
            self._view.draw_filter(self.wanted)
            self._draw_rows()
            self._listed()

    def toggle_outlines(self) -> None:
        """Show or hide all outlines."""
        if self.session is not None and self.session.alive:
            self._outlines = not self._outlines
            self.session.views.show_outlines(self._outlines)
            self._view.draw_outlines(self._outlines)

    def toggle_picture(self, picture: Picture) -> None:
        """Show the healthy edit or the difference instead of the CT; a second time: the CT."""
        self.commit_comment()
        self.show_picture("ct" if picture == self.picture else picture)

    def show_picture(self, picture: Picture) -> None:
        """Show the CT, or what the method made of the chosen candidate's vertebra."""
        item, session = self.current, self.session
        node = None
        if session is not None and session.alive and item is not None and picture != "ct":
            evidence = self.evidence(item.level)
            if evidence is None:
                self._view.say(texts.not_kept(item.level), "warning")
            else:
                edit, difference = session.results.evidenceVolumes(evidence, item.level)
                node = edit if picture == "healthy" else difference
        if session is not None:
            session.views.show_picture(node)
        if node is None:
            picture = "ct"
        self.picture = picture
        self._view.draw_picture(picture)
        if picture == "difference" and item is not None:
            seen = self.evidence(item.level)
            if seen is not None:
                limit = difference_limit(seen.image, seen.difference[seen.body])
                scale = texts.difference_scale(limit, is_hounsfield(seen.image))
                self._view.say(scale)

    def evidence(self, level: str) -> Evidence | None:
        """Return what the method saw of a vertebra, None where the scene does not hold it."""
        if self._evidence[0] != level and self.results is not None and self.results.alive:
            self._evidence = (level, self.results.evidence(level))
        return self._evidence[1] if self._evidence[0] == level else None

    def add_missed(self, level: str, type: LesionType) -> str:
        """Add an empty lesion that the reader is about to draw; return its id, empty if not."""
        if self.review is None or not self._alive or level not in self.review.vertebrae:
            return ""
        self._begin_action()
        identity = self.review.add_missed(level, type)
        if self.results is not None:
            self.results.forget(identity)  # that was undone, and cannot be done again any more
        self.renew()
        self.flush()
        self._choose(identity)
        text = _("Paint “{name}” in Segment Editor, then come back here: it counts as accepted.")
        self._view.say(text.format(name=self.review.item(identity).name))
        return identity

    def take_over_outlines(self) -> None:
        """Measure lesions whose outlines were drawn here; what is chosen stays chosen."""
        before = self.review.items if self.review is not None else ()
        if self.session is not None and self.session.measure():
            said = self._strayed(before)
            if said or self._astray:
                self._view.say(said, "warning")
            self._astray = said
            self.renew()
        self.flush()

    def say(self, text: str, kind: Kind = "info") -> None:
        """Show one message in place of the last one."""
        self._view.say(text, kind)

    def say_kept(self, error: Exception | None = None) -> None:
        """Say why the review cannot be saved automatically, as long as that is so."""
        before, self._not_kept = self._not_kept, texts.not_saved(error) if error else ""
        if self._not_kept != before:
            self._say()
        if error and not before:
            self._view.say(self._not_kept, "warning")

    def call_later(self, seconds: float, action: Callable[[], None]) -> Callable[[], None]:
        """Call ``action`` once after a while; return what cancels that."""
        return self._view.call_later(seconds, action)

    # Results that were removed.

    def keep_removed(self, review: Review, results: Results) -> bool:
        """Keep removed results until others take their place; False where that cannot be done."""
        self._lost = (review, results) if results.canReturn else None
        self._view.draw_put_back(self._lost is not None)
        return self._lost is not None

    def forget_removed(self) -> None:
        """Results that were removed cannot be put back any more."""
        self._lost = None
        self._view.draw_put_back(False)

    def put_back(self) -> None:
        """Put removed results back into the scene, with all verdicts."""
        kept = self._lost
        self.forget_removed()
        if kept is None:
            return
        try:
            results = kept[1].recreated()
            results.apply(kept[0])  # before the review looks at what the segments say
        except SceneError as error:
            self._view.say(str(error), "error")
            return
        self.show(ReviewSession(kept[0], results))
        text = _("“{name}” is back, with all verdicts.")
        self._view.say(text.format(name=results.node.GetName()))

    # Within.

    def _sync(self, session: ReviewSession) -> bool:
        """Take over what was done to the scene elsewhere; False: there was nothing new."""
        before = session.review.items
        changed = session.sync_from_scene()
        own = take_over(session)
        known = {item.id: item.verdict for item in before}
        judged = [x for x in session.review.items if known.get(x.id, x.verdict) != x.verdict]
        lines = (
            texts.judged_elsewhere(judged),
            texts.own_segments(own.taken, own.left),
            self._strayed(before),
        )
        said = "\n".join(filter(None, lines))
        if said:
            self._view.say(said, "warning")
        return changed or bool(own.taken)

    def _strayed(self, before: Sequence[Item]) -> str:
        """Return what is to be said of lesions that the reader drew since, or drew otherwise."""
        if self.session is None:
            return ""
        drawn = {x.id for x in self.session.review.items if x.missed and x not in before}
        return texts.strayed(strayed(self.session, drawn))

    @property
    def _alive(self) -> bool:
        return self.session is not None and self.session.alive

    def _begin_action(self) -> None:
        """Keep what is being typed, and remove the message about earlier actions."""
        self._at_work = True
        self._view.say("")
        self.commit_comment()

    @property
    def _node(self) -> Any:
        return self.results.node if self.results is not None else None

    def _draw_rows(self) -> None:
        if self.review is not None:
            self._view.draw_rows(self.review.ordered(self.wanted), self.shown)

    def _draw_vertebrae(self) -> None:
        """Draw what is said of vertebrae and the burden, where that has changed."""
        session = self.session
        if session is None:
            return
        states, burden = session.review.states(), session.review.burden()
        if (states, burden) != self._drawn:
            self._drawn = states, burden
            self._view.draw_vertebrae(states)
            self._view.draw_burden(burden, texts.burden_heading(session.review))
            self._view.draw_level(self._level)

    def _draw_results(self) -> None:
        every = self._of_this_ct(lambda text: None)
        self._offered = tuple(every.values())
        names = {each: session.results.node.GetName() for each, session in every.items()}
        chosen = next((x for x in every if every[x].results.node is self._node), "")
        self._view.draw_results(names, chosen)

    def _of_this_ct(self, complain: Callable[[str], None]) -> dict[str, ReviewSession]:
        """Return the reviews of the CT at hand, by node ID: that CT is the window's input, too."""
        ct = self.results.ctNode if self.results is not None else None
        found = sessions(complain, ct) if ct is not None else []
        return {str(session.results.node.GetID()): session for session in found}

    def _choose(self, identity: str, level: str = "") -> None:
        before, item = self.current, self._item(identity)
        self._current, self._seen = item.id if item is not None else "", item
        self._level = item.level if item is not None else level
        if self.picture != "ct" and (item is None or before is None or item.level != before.level):
            self.show_picture("ct")
        self._view.draw_chosen(item)
        self._view.draw_level(self._level)
        self._say()
        if self.session is not None and self._entered:
            self.session.isolate(self._current)
            if item is not None:
                self.session.visit(item)
            elif level:
                self.session.visit_vertebra(level)

    def _changed(self, ids: Sequence[str]) -> None:
        """Draw candidates that were changed; the scene follows."""
        assert self.review is not None
        if self.wanted.order in ("type", "verdict"):
            self._draw_rows()
        else:
            self._view.draw_items([item for item in self.review.items if item.id in ids])
        self._listed()
        self._settle_later()

    def _listed(self) -> None:
        """Draw the list; what is no longer listed is no longer chosen."""
        shown = self.shown
        self._view.draw_shown(shown)
        if self._current and self._current not in shown:
            self._choose("")
        else:
            self._say()

    def _say(self) -> None:
        review, item = self.review, self.current
        if review is None or self.session is None:
            return
        self._view.draw_texts(
            ReviewTexts(
                review.summary(),
                review.counts(self.wanted),
                texts.details(review, item, self._level),
                item.comment if item is not None else "",
                texts.quiet(review, self.session.notes),
                review.can_undo,
                review.can_redo,
                texts.step_of(review, review.following(False)),
                texts.step_of(review, review.following(True)),
                self._not_kept,
            )
        )

    def _was_seen(self, item: Item, seen: str) -> bool:
        """Return whether the chosen candidate is the one that the reader saw; says where it is not.

        It was not where another window of the same session has chosen it.
        """
        if not seen or seen == item.id:
            return True
        self._view.say(texts.chosen_meanwhile(item.name), "warning")
        return False

    def _item(self, identity: str) -> Item | None:
        if self.review is None or not identity:
            return None
        try:
            return self.review.item(identity)
        except KeyError:  # another window of the same session may know an older list
            return None

    def _settle_later(self) -> None:
        self._stop_settling()
        self._cancel_settling = self._view.call_later(SETTLE_SECONDS, self.flush)

    def _stop_settling(self) -> None:
        if self._cancel_settling is not None:
            self._cancel_settling()
        self._cancel_settling = None
