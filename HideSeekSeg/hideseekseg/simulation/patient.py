"""A simulated patient: what all vertebrae of one person share, and what each of them has.

A reader judges a vertebra against its neighbours.  So that a network can, too, one marrow, one
scanner, degenerative changes that go with each other and metastases mostly of one kind are drawn
for a patient, and then what each vertebra has of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from . import benign_mimics as mimics
from .acquisition import Acquisition, random_acquisition
from .benign_mimics import Painter, Site
from .metastases import Disease, Kind, draw_diameter, draw_disease, draw_kind
from .random_fields import Field, Rng

# From the neck down; where degeneration is frequent, and where a DISH's bone flows.
ORDER = ("C7", *(f"T{n}" for n in range(1, 13)), *(f"L{n}" for n in range(1, 6)))
LUMBAR = ORDER.index("L1")
WORN = {"C7", "T7", "T8", "T9", "T10", "L3", "L4", "L5"}
FLOWING = {f"T{n}" for n in range(5, 12)}
CONDENSED = {f"T{n}" for n in range(3, 13)}
PRESSED = {*(f"T{n}" for n in range(6, 13)), "L1", "L2"}  # where Scheuermann's disease is
FRACTURED = {"T6", "T7", "T8", "T11", "T12", "L1", "L2"}
LEAST_MARROW_HU = 25.0


@dataclass(frozen=True)
class Wedge:
    """An old compression fracture: shares of height lost in front and behind, from one endplate."""

    front: float
    back: float
    upper: bool


@dataclass(frozen=True)
class BodyPlan:
    """What one vertebra of a patient has.

    ``shift_hu`` moves its marrow.  ``changes`` are painted in order, by the names that they are
    listed under.  ``disease`` is None in a vertebra without metastases; ``kind`` is what its own
    are, ``diameter_mm`` the size of the largest.  ``faint``: they may be fainter than a
    reader asks for.
    """

    shift_hu: float
    changes: tuple[tuple[str, Painter], ...]
    wedge: Wedge | None = None
    disease: Disease | None = None
    kind: Kind = "lytic"
    diameter_mm: float = 10.0
    faint: bool = False


@dataclass(frozen=True)
class SimulatedPatient:
    """One person on one scanner; ``bodies`` in the order of the levels that were asked for."""

    how: Acquisition
    bodies: tuple[BodyPlan, ...]


@dataclass(frozen=True)
class _Traits:
    """What decides a patient's benign changes."""

    age: float
    marrow_hu: float
    slope_hu: float  # further fall per level, beside that of the scan's own bodies
    enhanced_hu: float
    worn: float  # 0..1
    dish: bool
    scheuermann: bool
    coarse_hu: float
    fine_hu: float
    trabeculae_hu: float
    condensed_hu: float
    roots_hu: float
    veins: float
    islands: float
    haemangiomas: float
    fat: float


def draw_patient(
    rng: Rng,
    levels: Sequence[str],
    marrow_hu: Sequence[float],
    slices_mm: float,
    diseased: bool | None = None,
) -> SimulatedPatient:
    """Draw a patient onto real vertebrae of one scan, at least one.

    ``levels`` run downwards; ``marrow_hu`` are the vertebrae's own median densities, whose
    differences stay; ``slices_mm`` is how far the scan's slices lie apart.  ``diseased`` fixes
    whether every vertebra or none has metastases.
    """
    traits = _draw_traits(rng)
    how = _draw_scanner(rng, slices_mm)
    thick = max(slices_mm, how.slices_mm)
    sick, disease = _draw_sick(rng, len(levels), traits, thick, diseased)
    own = float(np.median(marrow_hu))
    middle = float(np.mean([place(level) for level in levels]))
    discs = _draw_discs(rng, levels, traits)
    plans = []
    for number, level in enumerate(levels):
        target = traits.marrow_hu + marrow_hu[number] - own + rng.normal(0, 5.0)
        target -= traits.slope_hu * (place(level) - middle)
        wedge = _draw_wedge(rng, level, traits)
        changes = _draw_changes(rng, level, traits, wedge) + discs[number]
        plans.append(
            BodyPlan(
                max(target, LEAST_MARROW_HU) - marrow_hu[number],
                tuple(changes),
                wedge,
                disease if sick[number] else None,
                _own_kind(rng, disease.kind),
                draw_diameter(rng, disease.smallest_mm),
                bool(rng.random() < 0.08),
            )
        )
    return SimulatedPatient(how, tuple(plans))


def place(level: str) -> int:
    """Return where a level stands from C7 (0) down; unknown levels count as L1."""
    return ORDER.index(level) if level in ORDER else LUMBAR


def _draw_traits(rng: Rng) -> _Traits:
    """Draw an adult with cancer: 25 to 90 years, most of them around 63.

    Marrow at L1 falls from 226 HU below 30 by 2.5 HU a year, deviation 40: Jang et al., Radiology
    2019;291:360-367.  Contrast adds 14 HU in the arterial and 18 in the portal phase: Pompe et al.,
    Eur Radiol 2015;25:283-289.  DISH is in one of five, the old: Hiyama et al., BMC Musculoskelet
    Disord 2018;19:178.
    """
    age = float(np.clip(rng.normal(63, 14), 25, 90))
    worn = float(np.clip(rng.normal((age - 45) / 45, 0.3), 0.0, 1.0))
    enhanced = float(rng.choice([0.0, 14.0, 18.0])) if rng.random() < 0.6 else 0.0
    enhanced = max(enhanced + rng.normal(0, 4.0), 0.0) if enhanced else 0.0
    dish = bool(rng.random() < (0.28 if age > 60 else 0.05))
    marrow = float(np.clip(rng.normal(226 - 2.5 * max(age - 28, 0), 45), 40, 330)) + enhanced
    uneven = 1.0
    if dish:
        # The old spines that were looked at have dense, uneven marrow.
        marrow += rng.uniform(20, 150)
        uneven = rng.uniform(1.2, 2.4)
    thin = marrow < 130
    return _Traits(
        age,
        marrow,
        rng.normal(1.0, 2.0),
        enhanced,
        worn,
        dish,
        bool(rng.random() < 0.08),
        rng.uniform(3, 16) * uneven,
        rng.uniform(2, 14) * uneven,
        rng.uniform(15, 50) if rng.random() < (0.45 if thin else 0.12) else 0.0,
        rng.uniform(30, 130) if rng.random() < (0.8 if dish else 0.45) else 0.0,
        rng.uniform(40, 220) if rng.random() < (0.7 if dish else 0.35) else 0.0,
        rng.uniform(0.1, 0.7),
        0.25 if rng.random() < 0.1 else 0.05,
        0.25 if rng.random() < 0.1 else 0.04,
        rng.uniform(0.1, 0.5) if age > 50 else 0.08,
    )


def _draw_scanner(rng: Rng, slices_mm: float) -> Acquisition:
    """Draw a scanner that adds nothing that the scan's own slices have blurred already."""
    how = random_acquisition(rng)
    if how.slices_mm <= 1.2 * slices_mm:
        how = replace(how, slices_mm=0.0)
    if slices_mm >= 2.5:
        s, p, _ = how.blur_mm
        how = replace(how, blur_mm=(s, p, 0.0))
    return how


def _draw_sick(
    rng: Rng, count: int, traits: _Traits, thick_mm: float, diseased: bool | None
) -> tuple[np.ndarray, Disease]:
    """Draw which vertebrae have metastases: none, some, most or all.

    Where marrow is as thin as tumour, lytic disease cannot be seen and sclerotic disease is drawn.
    """
    share = 0.0
    if rng.random() > 0.25:
        share = rng.uniform(0.1, 0.5) if rng.random() < 0.5 else rng.uniform(0.5, 1.0)
    sick = rng.random(count) < share
    if diseased is not None:
        sick = np.full(count, diseased)
    kind = draw_kind(rng)
    if traits.marrow_hu < 115 and kind == "lytic" and rng.random() < 0.7:
        kind = "blastic"
    enhanced = rng.uniform(15, 40) if traits.enhanced_hu else 0.0
    return sick, draw_disease(rng, kind, enhanced, thick_mm)


def _own_kind(rng: Rng, kind: Kind) -> Kind:
    """One vertebra in ten shows another kind than most."""
    return kind if rng.random() < 0.9 else draw_kind(rng)


def _draw_wedge(rng: Rng, level: str, traits: _Traits) -> Wedge | None:
    """Draw an old fracture: in thin bone, and where fractures are frequent."""
    chance = 0.12 if traits.marrow_hu < 110 else 0.04 if traits.age > 60 else 0.01
    if rng.random() > chance * (1.6 if level in FRACTURED else 0.5):
        return None
    front = rng.uniform(0.12, 0.4)
    return Wedge(front, front * rng.uniform(0.0, 0.6), bool(rng.random() < 0.75))


def _draw_changes(
    rng: Rng, level: str, traits: _Traits, wedge: Wedge | None
) -> list[tuple[str, Painter]]:
    """Draw what a vertebra has apart from its discs; normal structure first."""
    changes = _draw_structure(rng, level, traits)
    findings: tuple[tuple[str, Painter, float], ...] = (
        ("fat", mimics.fatty_island, traits.fat),
        ("haemangioma", mimics.haemangioma, traits.haemangiomas),
        ("bone island", mimics.bone_island, traits.islands),
    )
    changes += [(name, painter) for name, painter, chance in findings if rng.random() < chance]
    if wedge is not None and rng.random() < 0.7:
        changes.append(("fracture", partial(mimics.impaction_band, upper=wedge.upper)))
    elif traits.marrow_hu < 120 and rng.random() < 0.05:
        changes.append(("fracture", mimics.impaction_band))
    if traits.dish and rng.random() < (0.85 if level in FLOWING else 0.35):
        changes.append(("DISH", mimics.flowing_ossification))
    return changes


def _draw_structure(rng: Rng, level: str, traits: _Traits) -> list[tuple[str, Painter]]:
    """Draw a vertebra's marrow, trabeculae and veins, of the patient's own strength."""
    vary = rng.uniform(0.7, 1.3)
    coarse, fine = traits.coarse_hu * vary, traits.fine_hu * vary
    marrow = partial(mimics.heterogeneous_marrow, coarse_hu=coarse, fine_hu=fine)
    changes: list[tuple[str, Painter]] = [("uneven marrow", marrow)]
    if traits.trabeculae_hu:
        amount = traits.trabeculae_hu * vary
        changes.append(("coarse trabeculae", partial(mimics.coarse_trabeculae, amount_hu=amount)))
    if traits.condensed_hu and level in CONDENSED:
        amount = min(traits.condensed_hu * rng.uniform(0.6, 1.3), 130.0)
        changes.append(("condensation", partial(mimics.central_condensation, amount_hu=amount)))
    if traits.roots_hu:
        amount = traits.roots_hu * rng.uniform(0.6, 1.3)
        changes.append(("pedicle roots", partial(mimics.pedicle_roots, amount_hu=amount)))
    if rng.random() < traits.veins:
        blood = rng.uniform(30, 110) if traits.enhanced_hu else rng.uniform(0, 60)
        changes.append(("vein", partial(mimics.basivertebral_cleft, blood_hu=blood)))
    return changes


def _draw_discs(
    rng: Rng, levels: Sequence[str], traits: _Traits
) -> list[list[tuple[str, Painter]]]:
    """Draw what discs do to the vertebrae on both sides of each, at the same place."""
    changes: list[list[tuple[str, Painter]]] = [[] for _ in levels]

    def add(
        name: str, painter: Callable[..., Field], below: int, chance: float, **site: Site
    ) -> None:
        """Give it to the lower endplate above the disc and to the upper one below it."""
        for number, upper in ((below - 1, False), (below, True)):
            neighbours = 0 < below < len(levels) and _adjacent(levels[below - 1], levels[below])
            if not 0 <= number < len(levels) or (rng.random() > chance and neighbours):
                continue
            changes[number].append((name, partial(painter, upper=upper, **site)))

    for below in range(len(levels) + 1):
        level = levels[min(below, len(levels) - 1)]
        worn = traits.worn * rng.uniform(0.3, 1.2) * (1.0 if level in WORN else 0.6)
        if rng.random() < 0.3 * worn:
            painter = partial(mimics.endplate_sclerosis, amount_hu=rng.uniform(80, 400))
            add("endplate", painter, below, 0.75)
        if rng.random() < 0.25 * worn:
            site = (rng.uniform(-0.7, 0.7), rng.choice([-0.7, 0.0, 0.8]) + rng.normal(0, 0.1))
            painter = partial(mimics.endplate_sclerosis, amount_hu=rng.uniform(150, 450))
            add("endplate", painter, below, 0.7, site=site)
        if rng.random() < 0.8 * worn or (traits.dish and rng.random() < 0.3):
            angle = rng.uniform(-2.2, 2.2)
            site = (0.95 * float(np.sin(angle)), -0.95 * float(np.cos(angle)))
            add("osteophyte", mimics.osteophyte, below, 0.7, site=site)
        chance = 0.55 if traits.scheuermann and level in PRESSED else 0.05 + 0.15 * worn
        if rng.random() < chance:
            site = (rng.uniform(-0.6, 0.6), rng.uniform(-0.35, 0.65))
            if rng.random() < 0.12:
                site = (rng.uniform(-0.5, 0.5), -0.85)  # a limbus: at the front corner
            rim = rng.uniform(80, 300) + 400 * worn * rng.random()
            add("Schmorl node", partial(mimics.schmorl_node, rim_hu=rim), below, 0.45, site=site)
    return changes


def _adjacent(above: str, below: str) -> bool:
    return above in ORDER and below in ORDER and place(below) == place(above) + 1
