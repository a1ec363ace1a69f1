"""The advanced part: threshold at the start, device, slices, weights and their card."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
import slicer.util
from slicer.i18n import tr as _

from hideseekseg.errors import InputError

from .status_bar import StatusBar
from .weights import BUNDLE, describe

DEVICES = {
    "auto": _("the best there is"),
    "cpu": _("processor (CPU)"),
    "cuda": _("NVIDIA graphics card (CUDA)"),
    "mps": _("Apple graphics (Metal)"),
}
SLICES = (_("as in the training of the weights"), _("all slices of the body"))
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
        folder = slicer.app.userSettings().value(FOLDER_KEY)
        self.use(Path(folder) if folder else BUNDLE, quiet=True)

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

    def use(self, folder: Path, quiet: bool = False) -> bool:
        """Take these weights, whose threshold is the one to start with.

        A folder that holds none is refused with a message and the weights stay what they were;
        ``quiet``: without a message, as for a remembered folder that is no longer there.
        """
        try:
            self.weights = describe(folder)
        except InputError as error:
            if not quiet:
                text = _("These weights cannot be used: {error}.").format(error=error)
                self._messages.show(text, "error")
                return False
        bundled = self.weights.bundled
        ui = self._ui
        ui.weightsEdit.text = "" if bundled else str(self.weights.folder)
        ui.weightsInfoLabel.text = self.weights.line()
        ui.bundledWeightsButton.setEnabled(not bundled)
        ui.startThreshold.value = self.weights.profile.decision.threshold
        ui.slicesSelector.setEnabled(self.weights.profile.geometry.central_slices is not None)
        slicer.app.userSettings().setValue(FOLDER_KEY, "" if bundled else str(self.weights.folder))
        self._changed()
        return True

    def _choose(self) -> None:
        title = _("Folder with profile.json, autoencoder.safetensors and classifier.safetensors")
        folder = qt.QFileDialog.getExistingDirectory(
            slicer.util.mainWindow(), title, str(self.weights.folder)
        )
        if folder:
            self.use(Path(folder))

    def _card(self) -> None:
        slicer.util.infoDisplay(self.weights.card(), windowTitle=_("Model card"))
