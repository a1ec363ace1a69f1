"""Weights of own patients: `segment` keeps to the slices of training, and knows its scans."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk
from scipy import ndimage

from hideseekseg.anatomy.preparation import LATERAL
from hideseekseg.cli.main import main
from hideseekseg.findings import Result
from hideseekseg.imaging.reading import read_ct, read_segmentation
from hideseekseg.imaging.volume import Grid, Volume, to_sitk
from hideseekseg.inputs import Options, check_inputs
from hideseekseg.lesions import p_of_vertebra
from hideseekseg.model.weights import load_model
from hideseekseg.pipeline import segment_spine
from hideseekseg.training.dataset import encode_all, load_slices
from hideseekseg.training.evaluation import measure_labels
from hideseekseg.training.train import COMPACT

LEVELS = ("T11", "T12", "L1")


def diamonds(
    box_spine: tuple[Volume, Volume],
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """HU and labels of bodies that taper to both sides, so that many of their slices are small."""
    ct, labels = box_spine
    j, i = np.indices(ct.grid.shape)[1:]
    inside = np.abs(j - 21.5) < 8.5 - 0.85 * np.abs(i - 21.5)
    tapered = np.where(inside, labels.array, 0)
    inner = ndimage.binary_erosion(tapered > 0)
    noise = np.random.default_rng(3).normal(0, 25, ct.grid.shape)
    hu = np.where(labels.array > 0, 40, ct.array)
    hu = np.where(tapered > 0, np.where(inner, 180, 450) + noise, hu)
    return hu.astype(np.int16), tapered.astype(np.uint8)


@pytest.fixture(scope="module")
def folder(box_spine: tuple[Volume, Volume], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One spine twice, with slices 2 and 4 mm apart, prepared for training."""
    folder = tmp_path_factory.mktemp("own")
    for slice_mm in (2, 4):
        name = f"{slice_mm}mm"
        grid = Grid(box_spine[0].grid.shape, np.diag([2.0, 2.0, slice_mm, 1.0]))
        files = f"{name}.nii.gz", f"{name}-bodies.nii.gz"
        hu, bodies = diamonds(box_spine)
        sitk.WriteImage(to_sitk(Volume(hu, grid)), str(folder / files[0]))
        sitk.WriteImage(to_sitk(Volume(bodies, grid)), str(folder / files[1]))
        labels = {level: "malignant" if level == "L1" else "healthy" for level in LEVELS}
        start, end = ",".join(files), "totalsegmentator"
        rows = [f"{start},{label},A,{level},{end}" for level, label in labels.items()]
        table = folder / f"{name}.csv"
        table.write_text("\n".join(["image,mask,label,patient,level,convention", *rows]), "utf-8")
        assert main(["prepare", str(table), "--out", str(folder / name)]) == 0
    return folder


def trained(folder: Path, name: str, *words: str) -> Path:
    """Weights that learned for a step; those that are there already are given again."""
    out = folder / " ".join([name, "weights", *(Path(word).parent.name for word in words)])
    if (out / "weights").is_dir():
        return out / "weights"
    steps = ["--encoder-steps", "1", "--decoder-steps", "1", "--device", "cpu"]
    assert main(["train", str(folder / name), "--out", str(out), *steps, *words]) == 0
    return out / "weights"


def found_by(weights: Path, folder: Path, name: str, all_slices: bool = False) -> Result:
    ct, labels = read_ct(folder / f"{name}.nii.gz"), folder / f"{name}-bodies.nii.gz"
    options = Options("totalsegmentator", all_slices=all_slices)
    inputs = check_inputs(ct, read_segmentation(labels), options)
    return segment_spine(inputs, load_model(weights, "cpu"))


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("--central-slices", "5")], ids=["broad", "central"])
def test_segment_analyses_the_slices_that_weights_of_own_patients_learned_from(
    words: tuple[str, ...], folder: Path
) -> None:
    weights = trained(folder, "2mm", *words)
    model = load_model(weights, "cpu")
    result = found_by(weights, folder, "2mm")
    assert [v.level for v in result.vertebrae] == [*LEVELS]
    learned, every = (load_slices(folder / "2mm", p) for p in (model.profile, COMPACT))
    assert model.profile.provenance["slices"] == len(learned)
    p = model.classifier.probability(encode_all(model.autoencoder, learned, model.profile)).numpy()
    for name, vertebra in zip(dict.fromkeys(learned.vertebra.tolist()), result.vertebrae):
        own = learned.vertebra == name
        assert len(vertebra.slice_p) == own.sum() == (5 if words else 17)
        # Shards hold whole HU.
        assert vertebra.p_malignant == pytest.approx(p_of_vertebra(p[own]), abs=0.01)
        count = int((every.vertebra == name).sum())
        left_out = count - own.sum()
        assert left_out > 4, "else this tests nothing"
        share = f"({left_out} of {count})"
        remark = f"lateral slices were not analysed: training had none of them {share}"
        assert ("only the 5 central slices were analysed" if words else remark) in vertebra.flags
    for vertebra in found_by(weights, folder, "2mm", all_slices=True).vertebrae:
        assert LATERAL in vertebra.flags
    figures = measure_labels(model, learned)
    assert figures["vertebra AUC"] in (0.0, 0.5, 1.0)


@pytest.mark.slow
def test_weights_of_own_patients_say_what_they_were_trained_on(folder: Path) -> None:
    """Of thick slices they say that these are thick where training had thin ones alone."""
    thick, thin = trained(folder, "4mm"), trained(folder, "2mm")
    both = trained(folder, "4mm", "--start", str(thin))
    limits = [load_model(weights, "cpu").profile.limits for weights in (thick, thin, both)]
    assert all(limits) and [one.slice_mm for one in limits if one] == [4.0, 2.0, 4.0]
    assert [one.layers for one in limits if one] == [13, 13, 13]
    assert all(one.noise_hu is not None and 5 < one.noise_hu < 80 for one in limits if one)
    said = "slices thicker than in training (4.0 mm)"
    for weights, expected in ((thick, False), (thin, True), (both, False)):
        for name in ("4mm", "2mm"):
            flags = {flag for v in found_by(weights, folder, name).vertebrae for flag in v.flags}
            assert (said in flags) is (expected and name == "4mm")
            assert not any("only 13 slices" in flag for flag in flags)
            if weights.parent.name.startswith(name):
                assert not any("training (" in flag for flag in flags), "they learned from these"
