"""A scan's vertebrae made ready for the networks, and the scale of its intensities.

The one place that does this: a run, the preparation of training data, simulation and benchmarks on
real vertebrae take theirs from here.  So what is learned from and measured is cut out as
``segment`` cuts it, with the same refusals and remarks.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass

from .anatomy.alignment import settled
from .anatomy.body import CUT, PATIENT_AXES
from .anatomy.intensity import (
    HOUNSFIELD,
    Calibration,
    Landmarks,
    calibrate,
    cut_off,
    surely_hounsfield,
)
from .anatomy.localization import LocatedBody, all_bodies, locate_body, spine_axes
from .anatomy.orientation import GO_ON
from .anatomy.preparation import Prepared, prepare
from .errors import NotCTError, SegmentationError, UserError
from .imaging.segmentation import Segmentation
from .imaging.volume import Volume
from .inputs import CheckedInputs, Options, check_inputs
from .model.profile import Geometry

# Yields the vertebrae of some levels, ready; whoever does not take all of them closes it.
Look = Callable[[Sequence[str]], Generator[Prepared, None, None]]


@dataclass(frozen=True)
class SpineScale:
    """The intensity scale of a scan, and what is to be said of all of its vertebrae."""

    calibration: Calibration
    flags: tuple[str, ...]


class Spine:
    """The vertebrae of a scan, each made ready when it is first asked for.

    ``known`` holds those that are ready, by level.
    """

    def __init__(self, inputs: CheckedInputs, geometry: Geometry) -> None:
        self.inputs = inputs
        self.known: dict[str, Prepared] = {}
        self._geometry = geometry
        labels, telling = inputs.assignments, inputs.checks.telling(inputs.assignments)
        self._marked = all_bodies(inputs.segmentation, labels, inputs.bodies)
        self._axes = spine_axes(inputs.segmentation, telling)

    def vertebra(self, level: str) -> Prepared:
        """Return a vertebra, ready for the method or with its obstacle."""
        if level not in self.known:
            self.known[level] = prepare(self.locate(level), self.inputs.ct, self._geometry)
        return self.known[level]

    def locate(self, level: str) -> LocatedBody:
        """Return where the body of a level lies, with what its label has against it."""
        inputs = self.inputs
        if level in inputs.checks.obstacles:  # spares the search for a body that is none
            site = LocatedBody(level, None, "given", ())
        else:
            labels = inputs.segmentation, inputs.assignments
            site = locate_body(
                *(level, *labels, inputs.ct.grid, self._marked),
                reference=self._axes.get(level, PATIENT_AXES),
            )
        return inputs.checks.applied(site)

    def scale(self, levels: Sequence[str] = (), look: Look | None = None) -> SpineScale:
        """Return the intensity scale, as soon as more than half of the vertebrae agree on HU.

        So the first results need not wait for the last bodies.  ``levels`` are looked at first, and
        all of the scan's where these do not settle it: a scale that must be found by landmarks does
        not depend on the vertebrae that were chosen.  ``look`` makes vertebrae ready, perhaps side
        by side; one after another without it.

        Raises SegmentationError where the outlines follow no bone, NotCTError where the volume is
        not a CT, either where no vertebra can be analysed for one reason.
        """
        patient = self.inputs.segmented
        found, cut = self._calibrated((tuple(levels) or patient, patient), look or self._each)
        agreement = self.inputs.agreement
        if agreement.refusal:  # what is not a CT was recognised by its values
            raise SegmentationError(self.inputs.segmentation.source, agreement.refusal)
        return SpineScale(found, (*agreement.flags, *((cut,) if cut else ())))

    def _calibrated(self, asked: Sequence[tuple[str, ...]], look: Look) -> tuple[Calibration, str]:
        """Return the scale, and a flag that is empty where it does not seem to be cut off."""
        ct = self.inputs.ct
        seen: list[Prepared] = []
        usable: list[Landmarks] = []
        for levels in dict.fromkeys(asked):
            seen = []
            with closing(look(levels)) as ready:
                for vertebra in ready:
                    seen.append(vertebra)
                    usable = [v.landmarks for v in seen if v.landmarks and not v.obstacle]
                    if surely_hounsfield(ct, usable, len(levels)):
                        cut = cut_off(ct, usable, HOUNSFIELD)
                        if not cut or levels == asked[-1]:
                            return HOUNSFIELD, cut
                        break
        if all(v.site.body is None and not v.site.obstacle for v in seen):
            cause = f"does not overlap with the CT {ct.name}"
            raise SegmentationError(self.inputs.segmentation.source, cause)
        if not usable:
            reasons = sorted({v.obstacle for v in seen})
            raise NotCTError(ct.source, f"no vertebra can be analysed: {', '.join(reasons)}")
        scale = calibrate(ct, usable)
        return scale, cut_off(ct, usable, scale)

    def _each(self, levels: Sequence[str]) -> Generator[Prepared, None, None]:
        yield from map(self.vertebra, levels)

    def whole(self, level: str, scale: SpineScale) -> tuple[str, tuple[str, ...]]:
        """Return why a vertebra is not to be learned from or measured on, and its own flags.

        It is not where ``segment`` would not analyse it, nor where only a part of its body is seen.
        """
        vertebra = self.vertebra(level)
        said = vertebra.flags_in(scale.calibration)
        cut = f"body {CUT}" if CUT in said else ""
        return vertebra.obstacle_in(scale.calibration) or cut, said


def spine_of(
    ct: Volume, segmentation: Segmentation, labels: str | None, geometry: Geometry
) -> Spine:
    """Return the vertebrae of a scan that is learned from or measured on.

    CT and segmentation are as ``read_ct`` and ``read_segmentation`` return them, ``undecided`` or
    not; ``labels`` is a label convention as in ``labelling.assign``.  Raises UserError where
    ``segment`` refuses them: there is no option to go on against the anatomy.
    """
    try:
        ct, segmentation, _ = settled(ct, segmentation, None, labels)
        return Spine(check_inputs(ct, segmentation, Options(labels)), geometry)
    except UserError as error:
        raise without_option(error) from error


def without_option(error: UserError) -> UserError:
    """Return an error without the advice to go on by an option that only ``segment`` has."""
    return type(error)(error.path, error.cause.removesuffix(GO_ON).rstrip())
