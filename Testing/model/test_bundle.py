"""The weights that come along: they load, they find the example's lesions, in HU or not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hideseekseg.attribution import encode
from hideseekseg.benchmark.rotations import (
    HEADER,
    RESAMPLED,
    Comparison,
    Scene,
    Turn,
    compare,
    random_turns,
    to_markdown,
)
from hideseekseg.findings import UNLIKE_TRAINING, UNSTABLE, LesionType, Result, Status, unstable
from hideseekseg.imaging.reading import read_ct, read_segmentation
from hideseekseg.imaging.volume import Volume
from hideseekseg.inputs import Options, check_inputs
from hideseekseg.model.inference import mean_change, seeded_noises
from hideseekseg.model.weights import BUNDLE, Model, load_model
from hideseekseg.pipeline import segment_spine
from hideseekseg.simulation.example import write_example

MIB = 1024**2
DATA = Path(__file__).resolve().parents[1] / "data"
EXAMPLE_LEVELS = ("T10", "T11", "T12", "L1", "L2")


@pytest.fixture(scope="module")
def bundle() -> Model:
    return load_model(BUNDLE, "cpu")


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    ct, vertebrae = write_example(tmp_path_factory.mktemp("example"))
    return ct, vertebrae


def run(ct: Volume, segmentation: Path, model: Model, labels: str, *levels: str) -> Result:
    options = Options(labels, levels)
    return segment_spine(check_inputs(ct, read_segmentation(segmentation), options), model)


@pytest.fixture(scope="module")
def whole(bundle: Model, example: tuple[Path, Path]) -> Result:
    """The result of the example as it is."""
    return run(read_ct(example[0]), example[1], bundle, "totalsegmentator")


def kinds(result: Result) -> dict[str, set[LesionType]]:
    """The types of the accepted lesions by level."""
    found = {v.level: {c.type for c in v.accepted(result.threshold)} for v in result.vertebrae}
    return {level: types for level, types in found.items() if types}


def test_bundle_is_small_and_holds_no_pickle() -> None:
    files = list(BUNDLE.iterdir())
    assert sum(f.stat().st_size for f in files) <= 16 * MIB
    assert {f.suffix for f in files} <= {".json", ".safetensors", ".md"}


def test_bundle_says_how_it_was_made() -> None:
    provenance = json.loads((BUNDLE / "profile.json").read_text(encoding="utf-8"))["provenance"]
    assert provenance["training"]["supervision"] in ("labels", "twins")
    assert provenance["patients"] and provenance["validation"]["vertebrae"] >= 100


def test_far_vertebrae_and_unstable_findings_are_to_be_looked_at(
    bundle: Model, example: tuple[Path, Path]
) -> None:
    """With limits that nothing meets both flags stand with the vertebra."""
    confidence = replace(bundle.profile.confidence, distance_limit=1e-3, least_stability=1.0)
    model = replace(bundle, profile=replace(bundle.profile, confidence=confidence))
    options = Options("totalsegmentator", ("L1",), threshold=0.01)
    inputs = check_inputs(read_ct(example[0]), read_segmentation(example[1]), options)
    (finding,) = segment_spine(inputs, model).vertebrae
    whole = kept_findings()["findings"]["example"]["L1"]
    assert finding.p_malignant == pytest.approx(whole["p_malignant"], abs=1e-4)
    scores = {c.id: c.score for c in finding.candidates}
    before = {name: one["score"] for name, one in whole["candidates"].items()}
    assert scores == pytest.approx(before, abs=1e-4), "alone as in a run of all"
    assert UNLIKE_TRAINING in finding.flags
    weak = [c.id for c in finding.candidates if c.stability is not None and c.stability < 1]
    assert weak, "else this tests nothing"
    assert [f for f in finding.flags if UNSTABLE in f] == [unstable(name) for name in weak]


def test_opposite_noise_leaves_less_of_itself_in_the_edit(bundle: Model) -> None:
    """Two opposite draws come nearer to the mean of many than two that know nothing of each."""
    rows, columns = np.mgrid[:48, :48] - 24.0
    shown = np.full((5, 48, 48), -1.0, np.float32)
    for n, picture in enumerate(shown):
        picture[np.maximum(abs(rows), abs(columns)) < 19] = -0.2
        picture[np.hypot(rows - 2 * n, columns + n) < 4 + n] = 0.4 if n % 2 else -0.7
    x = torch.from_numpy(shown)[:, None]
    z = encode(x, bundle).z
    told = [x, z, bundle.classifier.move_to(z, 1e-4)]

    def change(draws: int, opposite: bool) -> torch.Tensor:
        schedule = replace(bundle.profile.schedule, draws=draws, opposite_noise=opposite)
        noises = seeded_noises(range(5), draws, (48, 48), opposite)
        return mean_change(bundle.autoencoder, schedule, told, noises, bundle.device, 32, None)

    many = change(64, opposite=False)
    error = {way: float((change(2, way) - many).square().mean()) for way in (True, False)}
    assert error[True] < 0.5 * error[False]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gain", "shift", "levels"),
    [
        (1.0, 0.0, ()),
        (0.01, 7.0, ()),
        (1 / 3000, 0.35, ("T12", "L1")),
        (0.17, 42.0, ("T12", "L1")),
    ],
)
def test_example_lesions_are_found_whatever_the_scale(
    bundle: Model,
    example: tuple[Path, Path],
    whole: Result,
    gain: float,
    shift: float,
    levels: tuple[str, ...],
) -> None:
    result = whole
    if gain != 1.0:
        ct = read_ct(example[0])
        scaled = replace(ct, array=np.asarray(ct.array * gain + shift, np.float32))
        result = run(scaled, example[1], bundle, "totalsegmentator", *levels)
    assert len(result.vertebrae) == len(levels or EXAMPLE_LEVELS)
    assert all(v.status is not Status.NOT_ANALYSED for v in result.vertebrae)
    found = kinds(result)
    assert "lytic" in found.get("T12", set())
    assert "blastic" in found.get("L1", set())
    assert not {*found} & {"T11", "L2"}, "nothing in healthy vertebrae"
    for candidate in (c for v in result.vertebrae for c in v.candidates):
        assert (candidate.mean_hu is None) == (gain != 1.0)
        sure = candidate.score > result.threshold
        assert (candidate.stability is not None) == sure, "only of findings"
        assert candidate.score == candidate.probability


def kept_findings() -> dict[str, Any]:
    """What runs of all vertebrae found with the weights of this hash."""
    kept: dict[str, Any] = json.loads((DATA / "findings.json").read_text("utf-8"))
    return kept


def assert_findings_are_kept(result: Result, name: str) -> None:
    """They are those of an earlier commit: what is made faster finds the same."""
    kept = kept_findings()
    assert result.run["weights_hash"] == kept["weights_hash"], "with new weights, keep theirs"
    expected = kept["findings"][name]
    analysed = {v.level: v for v in result.vertebrae if v.status is not Status.NOT_ANALYSED}
    assert [*analysed] == [*expected]
    for level, vertebra in analysed.items():
        assert vertebra.p_malignant == pytest.approx(expected[level]["p_malignant"], abs=1e-4)
        candidates = expected[level]["candidates"]
        assert [c.id for c in vertebra.candidates] == [*candidates]
        for found in vertebra.candidates:
            one = candidates[found.id]
            assert found.score == pytest.approx(one["score"], abs=1e-4)
            assert found.volume_mm3 == pytest.approx(one["volume_mm3"], rel=1e-3)


@pytest.mark.slow
def test_findings_of_the_example_are_kept(whole: Result) -> None:
    assert_findings_are_kept(whole, "example")


@pytest.mark.slow
def test_a_vertebra_of_the_example_is_the_same_alone(
    whole: Result, bundle: Model, example: tuple[Path, Path]
) -> None:
    """Its P, candidates, scores and stability to the last digit, and so the picture of its edit."""
    alone = run(read_ct(example[0]), example[1], bundle, "totalsegmentator", "L1")
    assert alone.vertebrae == tuple(v for v in whole.vertebrae if v.level == "L1")
    assert [c.stability for v in alone.vertebrae for c in v.candidates if c.stability]
    for name in ("difference", "lytic", "blastic"):
        one, other = (getattr(seen.evidence["L1"], name) for seen in (alone, whole))
        assert np.array_equal(one, other)


@pytest.mark.slow
def test_findings_in_a_real_scan_are_kept(bundle: Model, shared: Path) -> None:
    """Four of eighteen vertebrae of LIDC-IDRI-0001, alone as in a run of all."""
    folder = shared / "data" / "lidc0001"
    files = read_ct(folder / "ct.nii.gz"), folder / "vertebrae.nii.gz"
    result = run(*files, bundle, "totalsegmentator", "C6", "C7", "L2", "L3")
    assert_findings_are_kept(result, "lidc0001")


SCORE_LIMIT, VOLUME_LIMIT = 0.05, 0.05  # with turned headers, the same voxels


def within_limits(seen: Sequence[Comparison]) -> bool:
    """Return whether every finding is found, its score and volume within what is promised."""
    return all(
        one.score is not None
        and one.volume is not None
        and abs(one.score) <= SCORE_LIMIT
        and abs(one.volume) <= VOLUME_LIMIT
        for one in seen
    )


@pytest.mark.slow
def test_findings_turn_with_the_patient(bundle: Model, example: tuple[Path, Path]) -> None:
    """One vertebra and few turns; `hideseekseg benchmark rotations` compares all with thirty."""
    vertebrae = read_segmentation(example[1]).layers[0]
    scene = Scene(read_ct(example[0]), vertebrae, levels=("T12",))
    (turn,) = random_turns(1, 30.0, seed=1)
    assert turn.degrees > 20
    seen = list(compare(scene, bundle, [turn]))
    turned = [one for one in seen if one.how == HEADER]
    assert turned and within_limits(turned)
    assert max(one.moved_mm or 0.0 for one in turned) < 0.1
    lesion = next(one for one in seen if one.how == RESAMPLED and "lytic" in one.finding)
    assert lesion.score is not None and abs(lesion.score) < 0.31
    assert lesion.volume is not None and abs(lesion.volume) < 0.1


def test_a_finding_that_is_lost_is_not_within_the_limits() -> None:
    turn = Turn((1.0, 0.0, 0.0), 10.0)
    kept = Comparison("T12-lytic-1", HEADER, turn, 0.04, -0.04, 0.1)
    assert within_limits([kept])
    for wrong in (
        replace(kept, score=None, volume=None, moved_mm=None),
        replace(kept, score=-0.06),
        replace(kept, volume=0.06),
    ):
        assert not within_limits([kept, wrong])
    lost = replace(kept, score=None, volume=None, moved_mm=None)
    facts = {"most": 30.0, "seed": 1, "weights": "w"}
    assert f"| {HEADER} | T12-lytic-1 | 1 of 2 | 0.040" in to_markdown([kept, lost], facts)


def test_dicom_slices_give_what_the_nifti_gives(bundle: Model, shared: Path) -> None:
    bodies = shared / "data/lidc0314/vertebral_bodies.nii.gz"
    levels = ("T10", "T11")
    whole = run(
        read_ct(shared / "data/lidc0314/ct.nii.gz"), bodies, bundle, "totalsegmentator", *levels
    )
    slices = run(
        read_ct(shared / "data/lidc0314_dicom"), bodies, bundle, "totalsegmentator", *levels
    )
    for a, b in zip(whole.vertebrae, slices.vertebrae):
        assert (a.level, a.status) == (b.level, b.status)
        assert a.p_malignant == pytest.approx(b.p_malignant, abs=0.05)
        assert a.body_mm3 == pytest.approx(b.body_mm3, rel=0.01)


def test_ready_made_crop_of_one_vertebra_is_valid_input(bundle: Model, shared: Path) -> None:
    """64 x 64 x 64 voxels around L3, rescaled, as research groups exchange them."""
    ct = read_ct(shared / "data/verse014/ct.nii.gz")
    masks = read_segmentation(shared / "data/verse014/vertebrae.nii.gz")
    (l3,) = [s for s in masks.segments if s.value == 22]
    middle = np.argwhere(masks.mask(l3)).mean(axis=0).astype(int)
    start = np.clip(middle - 32, 0, np.maximum(np.array(ct.array.shape) - 64, 0))
    box = tuple(slice(int(s), int(s) + 64) for s in start)
    part = ct.grid.cut(start, ct.array[box].shape)
    scaled = np.asarray(ct.array[box] / 2000.0, np.float32)
    layers = tuple(replace(la, array=la.array[box], grid=part) for la in masks.layers)
    cropped = replace(masks, layers=layers, segments=(l3,))
    result = segment_spine(check_inputs(Volume(scaled, part), cropped, Options("verse")), bundle)
    assert [(v.level, v.status is Status.NOT_ANALYSED) for v in result.vertebrae] == [("L3", False)]
