"""The page: its template, its look, its keys, and the state that the browser shows."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trame.ui.html import DivLayout

from ..anatomy.label_conventions import CONVENTIONS
from ..ui import level_choices, texts
from ..ui.review_controller import Kind
from ..ui.shortcuts import KEYS, shown
from .mouse import PRESETS

FOLDER = Path(__file__).resolve().with_name("static")
ADDRESS = "hideseekseg"
ICON = FOLDER / "icon.png"


class PageState:
    """What every open tab shows; all of them share one state."""

    def __init__(self, server: Any, do: Callable[..., Any]) -> None:
        """``do`` gets the name of what was pressed and its values; it may be a coroutine."""
        self._state = server.state
        module = {
            "serve": {ADDRESS: str(FOLDER)},
            "scripts": [f"{ADDRESS}/page.js"],
            "styles": [f"{ADDRESS}/page.css"],
        }
        from trame_rca import module as areas

        server.enable_module(areas)
        server.enable_module(module)
        server.trigger("do")(do)
        self._state.update(
            {
                "trame__title": "HideSeekSeg",
                "trame__favicon": _icon(),
                "keys": {a: shown(k) for a, k in KEYS.items()},
                "columns": list(texts.COLUMNS),
                "colours": texts.COLOURS,
                "choices": list(level_choices.CHOICES),
                "parts": level_choices.PARTS,
                "conventions": [
                    {"value": value, "text": text}
                    for value, text in zip(("names", *CONVENTIONS), level_choices.READ_BY)
                ],
                "verdicts": texts.VERDICTS,
                "reasons": texts.REASON_NAMES,
                "orders": list(texts.ORDER_OF_COLUMN),
                "vertebra_columns": list(texts.VERTEBRA_COLUMNS),
                "burden_columns": list(texts.BURDEN_COLUMNS),
                "tab": "findings",
                "presets": {name: text for name, (text, _, _) in PRESETS.items()},
                "message": {"text": "", "kind": "info"},
            }
        )
        with DivLayout(server, classes="app") as layout:
            layout.root.add_child((FOLDER / "page.html").read_text("utf-8"))

    def show(self, **values: Any) -> None:
        """Change what the page shows; values are plain data."""
        with self._state:
            self._state.update(values)

    def get(self, name: str) -> Any:
        """Return what was shown last."""
        return self._state[name]

    def say(self, text: str, kind: Kind = "info") -> None:
        """One line says what happened and what to do; an empty one takes it away."""
        self.show(message={"text": text, "kind": kind})


def start_page() -> str:
    """Return trame's own page, with our order of messages in force before the first one comes."""
    from trame_client.module.vue3 import www

    page = (Path(www) / "index.html").read_text("utf-8")
    return page.replace("<head>", f'<head><script src="{ADDRESS}/in_order.js"></script>', 1)


def _icon() -> str:
    """In the address itself: no request for it ever leaves."""
    return "data:image/png;base64," + base64.b64encode(ICON.read_bytes()).decode()
