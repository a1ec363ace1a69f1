"""Description of a weights folder for the panel: name, hash, model card, estimated time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from hideseekseg.model.profile import BUNDLE, Profile, read_profile
from hideseekseg.progress import duration
from hideseekseg.ui.segmentation_run import SegmentationRun

CARD = "MODEL-CARD.md"
START_SECONDS = 5.0  # to start Python, load torch and the weights, and read the files
# Seconds per vertebra where nothing was measured yet: on a processor, and on a graphics card.
GUESSES = {"single-shot": (0.6, 0.3), "render": (1200.0, 60.0)}


@dataclass(frozen=True)
class Weights:
    """A weights folder, described by its profile; its tensors are not read."""

    folder: Path
    profile: Profile
    hash: str

    @property
    def bundled(self) -> bool:
        return self.folder == BUNDLE

    def line(self) -> str:
        """For the panel, below the folder."""
        saw = self.profile.geometry.central_slices
        part = _(", trained on the {count} central slices").format(count=saw) if saw else ""
        text = _("“{name}”, hash {hash}")
        return text.format(name=self.profile.name, hash=self.hash[:12]) + part

    def card(self) -> str:
        """Where the weights come from: their own card, or what their profile tells."""
        try:
            return (self.folder / CARD).read_text("utf-8")
        except OSError:
            return "\n".join(_told(self))

    def estimate(self, vertebrae: int, device: str, all_slices: bool) -> str:
        """How long a run will take, in words; ``device`` is torch's name or empty."""
        measured = remembered(self.hash, device, all_slices)
        seconds = START_SECONDS + vertebrae * (measured or self._guess(device, all_slices))
        text = _("Takes about {time} for {count} vertebrae")
        if vertebrae == 1:
            text = _("Takes about {time} for {count} vertebra")
        basis = "" if measured else _(", a first estimate")
        return text.format(time=duration(seconds), count=vertebrae) + basis + "."

    def _guess(self, device: str, all_slices: bool) -> float:
        on_card = device.startswith(("cuda", "mps"))
        seconds = GUESSES[self.profile.schedule.edit][on_card]
        central = self.profile.geometry.central_slices
        return (
            seconds * (40 / self.profile.geometry.slice_mm / central)
            if (all_slices and central)
            else seconds
        )


def describe(folder: Path) -> Weights:
    """Read the profile of a weights folder; raises WeightsError naming the file and the cause."""
    stored = read_profile(folder)
    return Weights(folder, stored.profile, stored.hash)


def remember(weights_hash: str, device: str, all_slices: bool, seconds: float) -> None:
    """Keep the seconds per vertebra that a run took, for the next estimate."""
    slicer.app.userSettings().setValue(_key(weights_hash, device, all_slices), round(seconds, 2))


def learn(run: SegmentationRun) -> None:
    """Keep the pace of a finished run."""
    pace = run.pace()
    if pace is not None:
        began, seconds = pace
        remember(began.weights_hash, began.device, run.choices.allSlices, seconds)


def remembered(weights_hash: str, device: str, all_slices: bool) -> float | None:
    """Seconds per vertebra of the last such run on this computer."""
    value = slicer.app.userSettings().value(_key(weights_hash, device, all_slices))
    return float(value) if value else None


def _key(weights_hash: str, device: str, all_slices: bool) -> str:
    part = "all" if all_slices else "usual"
    return f"HideSeekSeg/seconds/{weights_hash[:12]}/{device.partition(':')[0] or 'cpu'}/{part}"


def _told(weights: Weights) -> list[str]:
    made = weights.profile.provenance
    training = made.get("training") or {}
    patients = [str(p) for p in made.get("patients") or []]
    drawn = sum(p.startswith("drawn") for p in patients)
    lines = [f"{weights.profile.name} (hash {weights.hash})", f"Folder: {weights.folder}"]
    if training.get("supervision") == "twins":
        lines.append("Trained on simulated lesions and their healthy twins: no patient's lesion.")
    elif training:
        lines.append("Trained with one label per slice: healthy or malignant.")
    if patients:
        lines.append(f"Vertebrae of {len(patients) - drawn} patients and {drawn} drawn ones.")
    if made.get("slices"):
        lines.append(f"{made['slices']} slices.")
    return [*lines, "", "Research use, not a medical device."]
