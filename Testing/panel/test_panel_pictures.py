"""A new user's walk: the sample, one click, verdicts, files; a picture at each stage."""

from __future__ import annotations

from pathlib import Path

import SimpleITK as sitk

from desktop import Desktop
from helpers.panel_pictures import NAMES, take
from hideseekseg.imaging.reading import read_segmentation


def test_from_the_sample_to_accepted_lesions_on_disk(desktop: Desktop, tmp_path: Path) -> None:
    take(desktop, tmp_path)
    for name in NAMES:
        picture = sitk.ReadImage(str(tmp_path / name))
        assert picture.GetWidth() > 300
    names = {s.name for s in read_segmentation(tmp_path / "export" / "accepted.seg.nrrd").segments}
    assert {"T12 lytic 1", "L1 blastic 1"} <= names
    assert (tmp_path / "export" / "accepted.csv").exists()
    assert (tmp_path / "export" / "review.json").exists()
