"""The advanced part: threshold at the start, device, slices, weights and their card."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import qt
import slicer
import slicer.util
from slicer.i18n import tr as _

from hideseekseg.errors import UserError
from hideseekseg.model.published.download import CODE, HUB, PUBLISHED
from hideseekseg.ui.segmentation_run import MakeJob

from .status_bar import StatusBar
from .weights import BUNDLE, describe

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
        ui.slicesSelector.setEnabled(self.weights.profile.geometry.central_slices is not None)
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
