"""The advanced part: threshold at the start, device, slices, weights and their description."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import qt
import slicer
import slicer.util
from slicer.i18n import tr as _

from hideseekseg.errors import UserError
from hideseekseg.model.profile import BUNDLE, Profile, read_profile
from hideseekseg.model.published.download import CODE, HUB, PUBLISHED
from hideseekseg.progress import duration
from hideseekseg.ui.segmentation_run import MakeJob, SegmentationRun

from .status_bar import StatusBar

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
        """Return where the weights come from: their own card, or what their profile tells."""
        try:
            return (self.folder / CARD).read_text("utf-8")
        except OSError:
            return "\n".join(_told(self))

    def estimate(self, vertebrae: int, device: str, all_slices: bool) -> str:
        """Return how long a run will take, in words; ``device`` is torch's name or empty."""
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


DEVICES = {
    "auto": _("automatic"),
    "cpu": _("CPU"),
    "cuda": _("NVIDIA graphics card (CUDA)"),
    "mps": _("Apple graphics (Metal)"),
}
SLICES = (_("as in training"), _("all slices of the body"))
FOLDER_KEY = "HideSeekSeg/weights"


class AdvancedSettings:
    """What the reader chose; ``changed`` is called after every choice."""

    def __init__(self, ui: Any, changed: Callable[[], None], messages: StatusBar) -> None:
        self._ui, self._changed, self._messages = ui, changed, messages
        ui.deviceSelector.addItems(list(DEVICES.values()))
        ui.slicesSelector.addItems(list(SLICES))
        ui.deviceSelector.connect("currentIndexChanged(int)", changed)
        ui.slicesSelector.connect("currentIndexChanged(int)", changed)
        ui.chooseWeightsButton.connect("clicked()", self._choose)
        ui.bundledWeightsButton.connect("clicked()", lambda: self.use(BUNDLE))
        ui.modelCardButton.connect("clicked()", self._card)
        self.weights = describe(BUNDLE)
        self._away: Path | None = None
        self._draw()
        self.recall()

    @property
    def device(self) -> str:
        """As ``--device`` takes it."""
        return list(DEVICES)[self._ui.deviceSelector.currentIndex]

    @property
    def allSlices(self) -> bool:
        return bool(self._ui.slicesSelector.currentIndex)

    @property
    def threshold(self) -> float:
        return float(self._ui.startThreshold.value)

    def recall(self) -> None:
        """Take the weights of the last time; where they are away, say so and try again later."""
        folder = slicer.app.userSettings().value(FOLDER_KEY)
        if not folder or Path(folder) == self.weights.folder:
            return
        self._away = None if self._take(Path(folder)) else Path(folder)
        if self._away is not None:
            text = _("Until then the bundled weights are used.")
            self._messages.show(f"{self._messages.text} {text}", "warning")
        self._draw()

    def use(self, folder: Path) -> bool:
        """Take these weights, whose threshold is the one to start with, and remember them.

        A folder that contains none is refused with a message, and nothing changes.
        """
        if not self._take(folder):
            return False
        self._away = None
        remembered = "" if self.weights.bundled else str(self.weights.folder)
        slicer.app.userSettings().setValue(FOLDER_KEY, remembered)
        self._draw()
        return True

    def _take(self, folder: Path) -> bool:
        try:
            self.weights = describe(folder)
        except UserError as error:
            text = _("These weights cannot be used: {error}.").format(error=error)
            self._messages.show(text, "error")
            return False
        return True

    def _draw(self) -> None:
        ui, bundled = self._ui, self.weights.bundled and self._away is None
        ui.weightsEdit.text = "" if bundled else str(self._away or self.weights.folder)
        line = self.weights.line()
        if self._away is not None:
            line = _("Not available; in use instead: {weights}").format(weights=line)
        ui.weightsInfoLabel.text = line
        ui.bundledWeightsButton.setEnabled(not bundled)
        ui.startThreshold.value = self.weights.profile.decision.threshold
        ui.slicesSelector.setEnabled(self.weights.profile.geometry.leaves_out)
        self._changed()

    def _choose(self) -> None:
        title = _("Folder with profile.json, autoencoder.safetensors and classifier.safetensors")
        folder = qt.QFileDialog.getExistingDirectory(
            slicer.util.mainWindow(), title, str(self.weights.folder)
        )
        if folder:
            self.use(Path(folder))

    def _card(self) -> None:
        slicer.util.infoDisplay(self.weights.card(), windowTitle=_("Model card"))


WEIGHTS = "weights"  # the folder that download-published makes


class WeightsImport:
    """Two buttons of the advanced part; the work is done by the library's command line."""

    def __init__(
        self, ui: Any, settings: AdvancedSettings, messages: StatusBar, makeJob: MakeJob
    ) -> None:
        self._ui, self._settings, self._messages = ui, settings, messages
        self._makeJob = makeJob
        self._job: Any = None
        self._weights = Path()
        ui.downloadWeightsButton.connect("clicked()", self._download)
        ui.importWeightsButton.connect("clicked()", self._import)

    def cancel(self) -> None:
        """Stop; what was downloaded stays, and the next attempt continues from there."""
        if self._job is not None:
            self._job.kill()
            self._job = None

    def _download(self) -> None:
        folder = self._folder(_("Folder for the published weights"))
        if folder is None:
            return
        text = _("{name} (at least {size} MB) from {address}")
        lines = [
            text.format(name=s.name, size=f"{s.least / 1e6:.1f}", address=s.address)
            for s in PUBLISHED
        ]
        terms = _("They are the work of their authors; for terms of use see {hub} and {code}.")
        terms = terms.format(hub=HUB, code=CODE)
        if slicer.util.confirmOkCancelDisplay(
            "\n".join([_("Download these files?"), "", *lines, "", terms]),
            windowTitle=_("Published weights"),
        ):
            self._weights = folder / WEIGHTS
            self._start(
                ["download-published", "--out", str(folder), "--yes"],
                _(
                    "Downloading the published weights; this may take many minutes. An interrupted"
                    " download continues when the button is pressed again."
                ),
            )

    def _import(self) -> None:
        names = [source.name for source in PUBLISHED]
        chosen = qt.QFileDialog.getOpenFileNames(
            slicer.util.mainWindow(),
            _("The authors' three files: {names}").format(names=", ".join(names)),
        )
        files = {Path(file).name: file for file in chosen}
        if not files:
            return
        missing = [name for name in names if name not in files]
        if missing:
            text = _("Choose all three files together: no {names}.")
            self._messages.show(text.format(names=", ".join(missing)), "error")
            return
        folder = self._folder(_("Folder to write the weights to"))
        if folder is not None:
            self._weights = folder / WEIGHTS
            words = [*(files[name] for name in names), "--out", str(self._weights)]
            self._start(["import-published", *words], _("Converting the published weights."))

    def _folder(self, title: str) -> Path | None:
        folder = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), title)
        return Path(folder) if folder else None

    def _start(self, words: Sequence[str], text: str) -> None:
        self._buttons(False)
        self._messages.show(text)
        self._job = self._makeJob(list(words), lambda event: None, self._ended, self._messages.show)
        self._job.start()

    def _ended(self, code: int, crashed: bool, tail: str) -> None:
        self._job = None
        self._buttons(True)
        if code or crashed:
            last = tail.strip().splitlines()[-1:] or [_("no reason was given")]
            text = _("The published weights are not available: {reason}").format(reason=last[0])
            self._messages.show(text, "error")
        elif self._settings.use(self._weights):
            self._messages.show(_("The published weights are ready and in use."))

    def _buttons(self, on: bool) -> None:
        self._ui.downloadWeightsButton.setEnabled(on)
        self._ui.importWeightsButton.setEnabled(on)
