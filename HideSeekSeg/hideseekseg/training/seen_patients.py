"""Whom weights have seen, by their provenance: nobody among these is held out.

Two ways of having seen a patient: the networks learned from the vertebrae, or thresholds (or the
step of training that was kept, or probabilities) were chosen on them.  Both go on with the weights
that a training starts from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..plain_data import counted
from ..simulation.source_vertebrae import one_spelling, shared_patients
from .trainer import Say

CHOSEN_ON, CHOSEN_ON_OWN = "chosen on", "chosen on own patients"
TUNED = "tuned on the validation set"


@dataclass(frozen=True)
class SeenPatients:
    """Patients by the names in a provenance, each once.

    ``learned_unknown`` and ``chosen_unknown`` say in words why there may be more than those named,
    and are empty where there are not.
    """

    learned_from: tuple[str, ...] = ()
    chosen_on: tuple[str, ...] = ()
    learned_unknown: str = ""
    chosen_unknown: str = ""

    def learned(self, patients: Iterable[str]) -> list[str]:
        """Return those of ``patients`` whom the networks learned from."""
        return shared_patients(patients, self.learned_from)

    def chosen(self, patients: Iterable[str]) -> list[str]:
        """Return those of ``patients`` on whose vertebrae something was chosen."""
        return shared_patients(patients, self.chosen_on)

    def joined(self, other: SeenPatients) -> SeenPatients:
        """Return whom either has seen."""
        learned, chosen = (
            tuple(sorted({*one_spelling(names)}))
            for names in (
                (*self.learned_from, *other.learned_from),
                (*self.chosen_on, *other.chosen_on),
            )
        )
        unknown = (
            "; ".join(dict.fromkeys(word for word in words if word))
            for words in (
                (self.learned_unknown, other.learned_unknown),
                (self.chosen_unknown, other.chosen_unknown),
            )
        )
        return SeenPatients(learned, chosen, *unknown)


def seen_patients(provenance: Mapping[str, Any]) -> SeenPatients:
    """Return whom weights of this provenance have seen, those behind their start included."""
    learned, own = _names(provenance.get("patients")), provenance.get("own patients")
    learned_unknown = chosen_unknown = ""
    if isinstance(own, int):
        whose = counted(own, "patient")
        learned_unknown = f"they learned from {whose}, of whom only the number is stated"
    elif not learned:
        learned_unknown = "the provenance does not state which patients they learned from"
    chosen, validation = _names(provenance.get(CHOSEN_ON)), provenance.get("validation")
    fitted = validation if isinstance(validation, dict) else {}
    if fitted.get("fitted on these"):
        chosen += _names(fitted.get("patients"))
    if isinstance(ended_on := provenance.get(CHOSEN_ON_OWN), int):
        whose = counted(ended_on, "patient")
        chosen_unknown = f"training was ended on {whose}, of whom only the number is stated"
    elif provenance.get("thresholds") == TUNED and CHOSEN_ON not in provenance:
        chosen_unknown = "the provenance does not state on which patients thresholds were tuned"
    seen = SeenPatients((), (), learned_unknown, chosen_unknown)
    seen = seen.joined(SeenPatients(tuple(learned), tuple(chosen)))
    start = provenance.get("start")
    if isinstance(start, dict):
        return seen.joined(seen_patients(start))
    training = provenance.get("training")
    if isinstance(training, dict) and training.get("start"):
        unknown = "the provenance does not state which patients their start learned from"
        return seen.joined(SeenPatients(learned_unknown=unknown))
    return seen


def _names(value: Any) -> list[str]:
    """Return names of a provenance, which is a file's and may contain anything."""
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def chosen_on(provenance: Mapping[str, Any], patients: Iterable[str]) -> dict[str, list[str]]:
    """Return what a provenance has to add where something was chosen on these patients as well."""
    before = _names(provenance.get(CHOSEN_ON))
    return {CHOSEN_ON: sorted({*one_spelling((*before, *patients))})}


def require_unseen(where: Path, patients: Iterable[str], weights: Path, seen: SeenPatients) -> None:
    """Raise InputError where ``where`` shows patients whom some weights learned from."""
    if both := seen.learned(patients):
        raise InputError(where, f"shows patients whom {weights} learned from: {', '.join(both)}")


def say_unchecked(weights: Path, seen: SeenPatients, where: Path, say: Say) -> None:
    """Say where it cannot be checked whether ``where`` shows patients who were learned from."""
    if seen.learned_unknown:
        say(f"{weights}: {seen.learned_unknown}: whether {where} shows one cannot be checked")
