"""The method without one of its parts, or with another setting of it, on the same vertebrae."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ..model.weights import Model
from .cases import BenchmarkCase
from .methods.method import HideAndSeek, with_profile
from .metrics import Outcome, outcome

RENDERED = {"invert_steps": 20, "render_steps": 10}
QUANTILES = (0.25, 0.5, 0.75)
THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)
NOISE_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5)
DRAWS = (1, 4, 16)


def ablations(model: Model) -> list[HideAndSeek]:
    """Return the method as it is, then its variants."""
    schedule = model.profile.schedule

    def decided(name: str, **changes: Any) -> HideAndSeek:
        return HideAndSeek(name, with_profile(model, changes, {}))

    def scheduled(name: str, **changes: Any) -> HideAndSeek:
        return HideAndSeek(name, with_profile(model, {}, changes))

    steps = f"{RENDERED['invert_steps']} + {RENDERED['render_steps']} steps"
    projection = (
        scheduled(f"projected by rendering, {steps}", projection="render", **RENDERED)
        if schedule.projection == "none"
        else scheduled("no projection", projection="none")
    )
    single = {"edit": "single-shot"}
    return [
        HideAndSeek("as the weights ask for", model),
        HideAndSeek("no hiding: every candidate kept", model, hiding=False),
        HideAndSeek("each slice judged alone, then joined", model, pooled=False),
        projection,
        scheduled(f"edit by rendering, {steps}", edit="render", **RENDERED),
        *(decided(f"candidate quantile {q}", candidate_quantile=q) for q in QUANTILES),
        decided("quantile 0.5 alone, no floors", **_published()),
        *(decided(f"score threshold {t}", threshold=t) for t in THRESHOLDS),
        *(scheduled(f"noise level {n}", noise_level=n, **single) for n in NOISE_LEVELS),
        *(scheduled(f"{n} draws of noise", draws=n, **single) for n in DRAWS),
    ]


def _published() -> dict[str, float]:
    return {"candidate_quantile": 0.5, "lytic_floor": 0.0, "blastic_floor": 0.0}


def run_ablations(
    methods: Sequence[HideAndSeek],
    subjects: Sequence[BenchmarkCase],
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> list[list[Outcome]]:
    """Return the outcomes of each method; methods that edit alike share the edit."""
    outcomes: list[list[Outcome]] = [[] for _ in methods]
    for number, subject in enumerate(subjects):
        edits: dict[Any, Any] = {}
        for method, own in zip(methods, outcomes):
            key = replace(method.model.profile.schedule, projection="none")
            if key not in edits:
                edits[key] = method.prepare(subject)
            lesions, p = method.detect(edits[key], method.fixed.settings)
            own.append(outcome(subject.case, subject.vertebra, lesions, p))
        tell(number + 1, len(subjects))
    return outcomes
