"""A real CT as a folder of DICOM slices, in the browser: by its path, and, twice, by upload."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from helpers import app
from helpers.app import PATIENCE, Tab, is_bright, open_tab


@pytest.fixture
def slices(shared: Path) -> Path:
    app.need_all()
    folder = shared / "data" / "lidc0314_dicom"
    if not folder.is_dir():
        pytest.skip("the DICOM slices of ../shared are not here")
    return folder


@pytest.fixture
def bodies(shared: Path) -> Path:
    return shared / "data" / "lidc0314" / "vertebral_bodies.nii.gz"


def load(tab: Tab) -> None:
    tab.page.select_option("#labels", "totalsegmentator")
    tab.page.click("#open-load")
    script = "() => document.querySelector('.levels summary')?.innerText.includes('T')"
    tab.until("() => document.querySelector('#open-error').innerText === ''")
    tab.until(f"() => window.trame.state.get('vertebrae') === 'vertebral_bodies' && ({script})()")
    tab.page.wait_for_selector("#segment:not([disabled])", timeout=PATIENCE)


@pytest.mark.slow
def test_folder_of_slices_is_opened_by_path_and_by_upload(
    slices: Path, bodies: Path, tmp_path: Path
) -> None:
    """What is uploaded holds every slice twice, as a disc may: it is the same scan."""
    for name in ("first", "again"):
        shutil.copytree(slices, tmp_path / "disc" / name)
    with app.browser() as browser, app.serve() as served:
        tab = open_tab(browser, served.url)
        tab.page.click("text=Open…")
        tab.page.fill("#ct-path", str(slices))
        tab.page.fill("#vertebrae-path", str(bodies))
        load(tab)
        by_path = (tab.text(".levels summary"), tab.state("places"))
        assert tab.text(".patient") == slices.name
        for view in (".sagittal", ".axial", ".coronal", ".threed"):
            tab.until_seen(view, is_bright, 300)

        tab.page.click("text=Open…")
        tab.page.click("#open-example")
        tab.until("() => window.trame.state.get('ct') === 'Example CT'")
        tab.page.wait_for_selector("#segment:not([disabled])", timeout=PATIENCE)
        tab.page.click("text=Open…")
        tab.page.fill("#ct-path", "")
        tab.page.fill("#vertebrae-path", "")
        tab.page.set_input_files("#dicom-folder", str(tmp_path / "disc"))
        tab.page.set_input_files("#vertebrae-file", str(bodies))
        load(tab)
        assert (tab.text(".levels summary"), tab.state("places")) == by_path
        assert not list(served.private.rglob("uploads/*/*")), "uploads pile up"
        assert tab.complaints == []
