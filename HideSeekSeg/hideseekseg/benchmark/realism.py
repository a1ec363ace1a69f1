"""Whether the healthy edit is real: how much of a lesion it removes, what an auditor says of it.

The auditor is an encoder with a classifier that no loss of the weights has seen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..attribution import encode
from ..findings import LESION_TYPES, LesionType
from ..model.weights import Model
from ..training.evaluation import Edited, edit_case
from .cases import BenchmarkCase
from .metrics import Estimate, Weights, draw_weights, interval, weighted_mean

LEAST_PIXELS = 16  # of lesion, for a slice to count as crossed


def realism(subjects: Sequence[BenchmarkCase], model: Model, auditor: Model) -> dict[str, Estimate]:
    """Means over the diseased vertebrae with a twin, with bootstrap intervals, by name."""
    ill = [s for s in subjects if s.twin is not None and _crossed(s).any()]
    rows = [_of_vertebra(subject, model, auditor) for subject in ill]
    weights = draw_weights([s.case.patient for s in ill], [s.vertebra for s in ill])
    names = rows[0] if rows else {}
    return {name: _estimate(np.array([row[name] for row in rows]), weights) for name in names}


def _estimate(values: npt.NDArray[np.float64], weights: Weights) -> Estimate:
    value = float(weighted_mean(values, np.ones((1, len(values))))[0])
    return Estimate(value, *interval(weighted_mean(values, weights)))


def _of_vertebra(subject: BenchmarkCase, model: Model, auditor: Model) -> dict[str, float]:
    seen = edit_case(subject.case, model)
    figures = {
        f"{kind} signal removed": removed_share(subject, seen, kind) for kind in LESION_TYPES
    }
    figures["change beside the lesions (x)"] = _beside(subject, seen)
    crossed = _crossed(subject)
    reference = subject.case.reference_of(crossed)
    pictures = {"image": subject.case.x, "edit": seen.healthy.edited, "twin": subject.twin}
    for judge, weights in (("own classifier", model), ("auditor", auditor)):
        for what, images in pictures.items():
            assert images is not None
            p = encode(images[crossed], weights, reference=reference).p.numpy()
            figures[f"P of {what}, {judge}"] = float(p.mean())
            figures[f"{what} called malignant, {judge}"] = float((p >= 0.5).mean())
    return figures


def removed_share(subject: BenchmarkCase, seen: Edited, kind: LesionType) -> float:
    """Return the part of the lesion's signal (image minus twin) that the edit takes away.

    1 where the edit is the twin, 0 where nothing was changed: the change's projection on the
    signal, over the true voxels of one type on slices that are analysed.  NaN without such voxels.
    """
    assert subject.twin is not None
    where = subject.case.truth[kind] & _analysed(subject)[:, None, None]
    signal = (subject.case.x - subject.twin)[:, 0].numpy()[where]
    change = -seen.healthy.difference[where]
    power = float((signal**2).sum())
    return float((change * signal).sum()) / power if power > 0 else float("nan")


def _beside(subject: BenchmarkCase, seen: Edited) -> float:
    """Mean absolute change of x in the body where there is no lesion, on slices with one."""
    case = subject.case
    beside = case.body & ~case.truth["lytic"] & ~case.truth["blastic"]
    beside &= _crossed(subject)[:, None, None]
    change = np.abs(seen.healthy.difference[beside])
    return float(change.mean()) if change.size else float("nan")


def _crossed(subject: BenchmarkCase) -> npt.NDArray[np.bool_]:
    truth = subject.case.truth
    crossed = (truth["lytic"] | truth["blastic"]).sum(axis=(1, 2)) >= LEAST_PIXELS
    return np.asarray(crossed & _analysed(subject))


def _analysed(subject: BenchmarkCase) -> npt.NDArray[np.bool_]:
    """Which slices (S,) are analysed: the others are not edited."""
    return np.isin(np.arange(len(subject.case.x)), subject.case.analysed)
