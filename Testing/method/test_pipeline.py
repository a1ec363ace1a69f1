"""The main job without files: what comes out for odd volumes, grids and wishes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from itertools import permutations, product
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from helpers.models import CPU, FAST, filled, threads, tiny_images
from helpers.vertebrae import TOY
from hideseekseg.anatomy.body import CUT
from hideseekseg.anatomy.localization import move
from hideseekseg.anatomy.quality import METAL_NEARBY
from hideseekseg.errors import InputError, NotCTError, SegmentationError
from hideseekseg.events import Event, Message, Progress, Started, VertebraDone
from hideseekseg.findings import Evidence, Result, Status, VertebraFinding
from hideseekseg.imaging.segmentation import Segment, Segmentation
from hideseekseg.imaging.volume import Grid, Volume, resample
from hideseekseg.inputs import Options, check_inputs
from hideseekseg.lesions import p_of_vertebra
from hideseekseg.model.autoencoder import DiffusionAutoencoder
from hideseekseg.model.classifier import LinearClassifier
from hideseekseg.model.profile import Confidence, Decision
from hideseekseg.model.weights import Model, load_model, on_cpu
from hideseekseg.pipeline import segment_spine

Spine = tuple[Volume, Volume]
BY_VALUE = Options(labels="totalsegmentator")
VALUES = {"T11": 33, "T12": 32, "L1": 31}


@pytest.fixture(scope="module")
def model(tiny_weights: Path) -> Model:
    return load_model(tiny_weights, "cpu")


def segmentation(labels: Volume) -> Segmentation:
    values = [int(v) for v in np.unique(labels.array) if v]
    return Segmentation((labels,), tuple(Segment("", "", v, 0) for v in values), "labels.nii.gz")


def run(
    ct: Volume,
    labels: Volume,
    model: Model,
    options: Options = BY_VALUE,
    on_event: Callable[[Event], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[Result, dict[str, Evidence]]:
    inputs = check_inputs(ct, segmentation(labels), options)
    result = segment_spine(inputs, model, on_event, should_stop)
    return result, dict(result.evidence)


def vertebra(result: Result, level: str) -> VertebraFinding:
    return next(v for v in result.vertebrae if v.level == level)


def changed(volume: Volume, change: Callable[[np.ndarray], None]) -> Volume:
    array = volume.array.astype(np.float32)
    change(array)
    return replace(volume, array=array)


@pytest.fixture(scope="module")
def usual(box_spine: Spine, model: Model) -> Result:
    return run(*box_spine, model)[0]


def test_every_vertebra_is_reported_from_the_head_down(box_spine: Spine, model: Model) -> None:
    result, evidence = run(*box_spine, model)
    assert [v.level for v in result.vertebrae] == ["T11", "T12", "L1"] == list(evidence)
    for found in result.vertebrae:
        assert found.status is Status.FINDINGS
        assert 0 < (found.p_malignant or 0) < 1
        assert found.body_source == "given"
        assert found.body_mm3 == 13 * 16 * 20 * 8
        assert found.flags == ()
        assert found.candidates


def test_candidates_lie_in_their_own_body(box_spine: Spine, usual: Result) -> None:
    ct, labels = box_spine
    for found in usual.vertebrae:
        for candidate in found.candidates:
            painted = np.zeros(ct.grid.shape, bool)
            assert candidate.patch is not None
            candidate.patch.paint(painted)
            assert (labels.array[painted] == VALUES[found.level]).all()
            assert candidate.volume_mm3 == painted.sum() * 8
            where = ct.grid.lps(np.argwhere(painted)[:, ::-1])
            assert np.allclose(candidate.centroid_lps, where.mean(axis=0))
            assert candidate.mean_hu == pytest.approx(ct.array[painted].mean())


def test_evidence_shows_the_ct_and_the_edit(box_spine: Spine, model: Model) -> None:
    ct, labels = box_spine
    _, evidence = run(ct, labels, model)
    for level, seen in evidence.items():
        again = resample(ct, seen.grid)
        inside = seen.body & (again.array > 100)
        assert abs(np.median(seen.image[inside] - again.array[inside])) < 20
        assert np.array_equal(seen.edit, seen.image + seen.difference)
        assert not seen.difference[~seen.body].any()
        own = resample(Volume(labels.array == VALUES[level], labels.grid), seen.grid, 0)
        assert (own.array == seen.body).mean() > 0.98
    lytic = np.concatenate([seen.difference[seen.lytic] for seen in evidence.values()])
    blastic = np.concatenate([seen.difference[seen.blastic] for seen in evidence.values()])
    assert (lytic > 0).all()
    assert (blastic < 0).all()


def orders() -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return list(product(permutations(range(3)), product((1, -1), repeat=3)))


def stored(volume: Volume, axes: tuple[int, ...], signs: tuple[int, ...]) -> Volume:
    """The same picture, its array axes (k, j, i) reordered, then flipped where the sign is -1."""
    array = volume.array.transpose(axes)[tuple(slice(None, None, s) for s in signs)]
    columns = [volume.grid.ijk_to_lps[:3, 2 - axis] for axis in axes]
    origin = volume.grid.ijk_to_lps[:3, 3].copy()
    for column, sign, n in zip(columns, signs, array.shape):
        origin += column * (n - 1) * (sign == -1)
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([c * s for c, s in zip(columns, signs)][::-1], axis=1)
    matrix[:3, 3] = origin
    return Volume(np.ascontiguousarray(array), Grid(array.shape, matrix), volume.name)


@pytest.mark.parametrize(("axes", "signs"), orders())
def test_storage_order_changes_nothing(
    axes: tuple[int, ...], signs: tuple[int, ...], box_spine: Spine, usual: Result, model: Model
) -> None:
    ct, labels = (stored(volume, axes, signs) for volume in box_spine)
    result, _ = run(ct, labels, model, replace(BY_VALUE, levels=("T12",)))
    found, before = result.vertebrae[0], vertebra(usual, "T12")
    assert found.p_malignant == pytest.approx(before.p_malignant, abs=1e-4)
    assert [c.type for c in found.candidates] == [c.type for c in before.candidates]
    for one, two in zip(found.candidates, before.candidates):
        assert np.abs(np.subtract(one.centroid_lps, two.centroid_lps)).max() < 2
        assert one.score == pytest.approx(two.score, abs=1e-3)


@settings(max_examples=10, deadline=None)
@given(
    spacing=st.tuples(*[st.floats(1.0, 3.0)] * 3),
    shift=st.tuples(*[st.floats(-1.0, 1.0)] * 3),
)
def test_segmentation_on_another_grid(
    spacing: tuple[float, float, float], shift: tuple[float, float, float], box_spine: Spine
) -> None:
    """Bodies keep place and size, within what their own voxels can say."""
    ct, labels = box_spine
    k, j, i = (int(np.ceil(n * 2 / s)) + 1 for n, s in zip(ct.grid.shape, spacing[::-1]))
    matrix = np.diag([*spacing, 1.0])
    matrix[:3, 3] = shift
    other = resample(labels, Grid((k, j, i), matrix), 0)
    mask = np.asarray(other.array == VALUES["T12"])
    patch, share = move(mask, other.grid, ct.grid)
    assert patch is not None
    painted = np.zeros(ct.grid.shape, bool)
    patch.paint(painted)
    centre = ct.grid.lps(np.argwhere(painted)[:, ::-1]).mean(axis=0)
    truth = ct.grid.lps(np.argwhere(labels.array == VALUES["T12"])[:, ::-1]).mean(axis=0)
    assert np.abs(centre - truth).max() < max(spacing) / 2 + 1
    assert share == 1


def test_rescaled_intensities_are_not_called_hounsfield(
    box_spine: Spine, usual: Result, model: Model
) -> None:
    ct, labels = box_spine
    airy = np.where(ct.array == ct.array.min(), -1000, ct.array)  # the scale is told by air
    scaled = replace(ct, array=(airy / 4000 + 0.5).astype(np.float32))
    result, _ = run(scaled, labels, model)
    assert result.run["hounsfield"] is False
    for found in result.vertebrae:
        assert found.p_malignant == pytest.approx(
            vertebra(usual, found.level).p_malignant, abs=0.15
        )
        assert {c.mean_hu for c in found.candidates} == {None}


def test_nan_in_one_vertebra_spares_the_others(
    box_spine: Spine, usual: Result, model: Model
) -> None:
    ct, labels = box_spine
    broken = changed(ct, lambda a: np.put(a, np.flatnonzero(labels.array == 32)[50], np.nan))
    result, evidence = run(broken, labels, model)
    assert "not finite" in vertebra(result, "T12").reason
    assert vertebra(result, "T12").status is Status.NOT_ANALYSED
    assert "T12" not in evidence
    for level in ("T11", "L1"):
        assert vertebra(result, level).p_malignant == pytest.approx(
            vertebra(usual, level).p_malignant, abs=0.02
        )


def test_nan_everywhere_is_no_ct(box_spine: Spine, model: Model) -> None:
    ct, labels = box_spine
    with pytest.raises(NotCTError, match="not finite"):
        run(changed(ct, lambda a: a.fill(np.nan)), labels, model)


def test_dark_bone_is_no_ct(box_spine: Spine, model: Model) -> None:
    ct, labels = box_spine
    with pytest.raises(NotCTError, match="CT"):
        run(replace(ct, array=500 - ct.array), labels, model)


def test_metal_in_a_body_forbids_and_beside_it_is_flagged(box_spine: Spine, model: Model) -> None:
    ct, labels = box_spine

    def screw(array: np.ndarray) -> None:
        array[30:36, 16:33, 20:22] = 8000  # into T12 and out of its back

    result, _ = run(changed(ct, screw), labels, model)
    assert vertebra(result, "T12").reason.startswith("metal in ")
    rod, _ = run(changed(ct, lambda a: a[25:38, 31:33, 20:22].fill(8000)), labels, model)
    assert METAL_NEARBY in vertebra(rod, "T12").flags
    assert vertebra(rod, "T12").p_malignant is not None
    assert METAL_NEARBY not in vertebra(rod, "T11").flags + vertebra(rod, "L1").flags


def test_bodies_at_and_beyond_the_edge_of_the_ct(box_spine: Spine, model: Model) -> None:
    """T11 is cut at its top, L1 all but gone, and each says so."""
    ct, labels = box_spine
    keep = slice(18, 50)
    part = Volume(ct.array[keep], ct.grid.cut((18, 0, 0), ct.array[keep].shape), "part")
    result, _ = run(part, labels, model)
    assert vertebra(result, "T11").flags == (CUT,)
    assert vertebra(result, "T11").p_malignant is not None
    assert vertebra(result, "T12").flags == ()
    assert vertebra(result, "L1").reason.startswith("too few voxels")
    keep = slice(21, 50)
    part = Volume(ct.array[keep], ct.grid.cut((21, 0, 0), ct.array[keep].shape), "part")
    assert vertebra(run(part, labels, model)[0], "L1").reason == "outside the CT"


def test_segmentation_elsewhere_is_refused(box_spine: Spine, model: Model) -> None:
    ct, labels = box_spine
    moved = replace(labels, grid=labels.grid.cut((500, 0, 0), labels.grid.shape))
    with pytest.raises(SegmentationError, match="does not overlap"):
        run(ct, moved, model)


def test_labels_without_a_convention_are_refused(box_spine: Spine, model: Model) -> None:
    with pytest.raises(InputError, match="declare a convention"):
        run(*box_spine, model, Options())


def test_vertebra_without_a_usable_level_is_reported(box_spine: Spine, model: Model) -> None:
    ct, labels = box_spine
    names = {33: "T11", 32: "T11 vertebra", 31: "L1"}
    segments = tuple(Segment("", name, value, 0) for value, name in names.items())
    named = Segmentation((labels,), segments, "named.seg.nrrd")
    result = segment_spine(check_inputs(ct, named, Options()), model)
    assert [v.level for v in result.vertebrae] == ["T11", "L1", "T11 vertebra"]
    assert result.vertebrae[-1].status is Status.NOT_ANALYSED
    assert result.vertebrae[-1].reason == "T11 is T11 already"


def test_bodies_of_another_file_are_used(box_spine: Spine, model: Model) -> None:
    """Vertebrae with an arch behind them, and a second segmentation that knows the bodies."""
    ct, labels = box_spine
    whole = changed(labels, lambda a: a[40:44, 30:38, 18:26].fill(33)).array.astype(np.uint8)
    vertebrae = segmentation(replace(labels, array=whole))
    result = segment_spine(check_inputs(ct, vertebrae, BY_VALUE, segmentation(labels)), model)
    assert {v.body_source for v in result.vertebrae} == {"intersected"}
    assert vertebra(result, "T11").body_mm3 == 13 * 16 * 20 * 8


def test_missing_level_is_refused_by_name(box_spine: Spine, model: Model) -> None:
    with pytest.raises(SegmentationError, match="contains no T5; it contains T11, T12, L1"):
        run(*box_spine, model, replace(BY_VALUE, levels=("T5", "L1")))


@pytest.mark.parametrize("number", [1, 2])
def test_stop_keeps_finished_vertebrae(
    number: int, box_spine: Spine, usual: Result, model: Model
) -> None:
    """Others may be finished as well where two are analysed at once."""
    said: list[Event] = []

    def enough() -> bool:
        return any(isinstance(event, VertebraDone) for event in said)

    with threads(number):
        result, evidence = run(*box_spine, model, on_event=said.append, should_stop=enough)
    finished = result.run["finished"]
    assert finished[0] == "T11" and [*evidence] == finished
    assert finished == ["T11"] if number == 1 else set(finished) <= set(VALUES)
    assert result.run["stopped"] == (len(finished) < len(VALUES))
    for found, before in zip(result.vertebrae, usual.vertebrae, strict=True):
        if found.level in finished:
            assert found == before
        else:
            assert found.reason == "stopped before its turn"


@pytest.mark.parametrize("number", [2, 3, 8])
def test_vertebrae_side_by_side_are_those_one_by_one(
    number: int, wholes: dict[tuple[str, bool], Whole]
) -> None:
    """All findings and pictures are the same, and the caller's thread alone hears of them."""
    scan, model, _ = wholes["hu", True]
    heard: list[tuple[Event, int]] = []

    def hear(event: Event) -> None:
        heard.append((event, threading.get_ident()))

    with threads(1):
        one_by_one = run_bodies(scan, model)
    with threads(number):
        at_once = run_bodies(scan, model, on_event=hear)
        alone = run_bodies(scan, model, "L1")
        assert torch.get_num_threads() == number
    assert at_once.vertebrae == one_by_one.vertebrae
    assert vertebra(alone, "L1") == vertebra(one_by_one, "L1")
    for level, evidence in one_by_one.evidence.items():
        for name in ("image", "edit", "body", "lytic", "blastic", "changed"):
            here, there = (getattr(one, name) for one in (evidence, at_once.evidence[level]))
            np.testing.assert_array_equal(there, here, err_msg=f"{level} {name}")
    assert {thread for _, thread in heard} == {threading.get_ident()}
    fractions = [event.fraction for event, _ in heard if isinstance(event, Progress)]
    assert fractions == sorted(fractions) and fractions[-1] <= 1
    assert [event.level for event, _ in heard if isinstance(event, VertebraDone)] == [*FIVE]


def test_stop_while_bodies_are_sought(box_spine: Spine, model: Model) -> None:
    result, evidence = run(*box_spine, model, should_stop=lambda: True)
    assert (result.run["finished"], evidence) == ([], {})
    assert all(v.status is Status.NOT_ANALYSED for v in result.vertebrae)


def test_events_count_up_to_the_end(box_spine: Spine, model: Model) -> None:
    said: list[Event] = []
    run(*box_spine, model, on_event=said.append)
    assert isinstance(said[0], Started)
    fractions = [e.fraction for e in said if isinstance(e, Progress)]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1)
    assert [e.level for e in said if isinstance(e, VertebraDone)] == ["T11", "T12", "L1"]


class TooLarge(torch.nn.Module):
    """A network that does not fit on the device "meta", which stands for a small graphics card."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network
        self.architecture = network.architecture

    def encode(self, x: torch.Tensor, reference: torch.Tensor | None = None) -> torch.Tensor:
        if x.is_meta:
            raise torch.cuda.OutOfMemoryError("out of memory")
        z: torch.Tensor = self.network.encode(x, reference)  # type: ignore[operator]
        return z

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        eps: torch.Tensor = self.network(*inputs)
        return eps


def test_a_device_that_is_too_small_is_left_for_the_processor(
    box_spine: Spine, usual: Result, model: Model
) -> None:
    said: list[Event] = []
    network = cast(DiffusionAutoencoder, TooLarge(model.autoencoder))
    small = replace(model, autoencoder=network, device=torch.device("meta"))
    result, _ = run(*box_spine, small, on_event=said.append)
    assert result.vertebrae == usual.vertebrae
    (message,) = [e for e in said if isinstance(e, Message)]
    assert "too little memory" in message.text
    assert result.run["device"] == "cpu"


def test_the_model_stays_on_its_device_for_the_next_scan(model: Model) -> None:
    """Only a copy of it goes to the CPU, every parameter an own one."""
    moved = on_cpu(replace(model, device=torch.device("meta")))
    assert moved.device.type == "cpu" and moved.hash == model.hash
    assert not moved.autoencoder.training
    own = {id(one) for one in (*model.autoencoder.parameters(), *model.autoencoder.buffers())}
    copied = moved.autoencoder.state_dict(keep_vars=True)
    assert own.isdisjoint(map(id, copied.values()))
    for name, tensor in model.autoencoder.state_dict(keep_vars=True).items():
        assert torch.equal(copied[name], tensor)
        assert copied[name].requires_grad == tensor.requires_grad


def test_first_result_comes_before_the_last_body(box_spine: Spine, model: Model) -> None:
    """Two of three vertebrae that look like HU settle the scale for all."""
    said: list[Event] = []
    run(*box_spine, model, on_event=said.append)
    steps = [(e.level, e.step) for e in said if isinstance(e, Progress)]
    assert steps.index(("T11", "encode")) == 2
    assert [level for level, step in steps if step == "body"] == ["T11", "T12"]


def test_the_schedule_is_the_users_and_stands_in_the_result(
    box_spine: Spine, usual: Result, model: Model
) -> None:
    options = replace(BY_VALUE, levels=("L1",), schedule="multistep")
    result, _ = run(*box_spine, model, options)
    assert result.run["schedule"]["name"] == "multistep"
    assert result.run["schedule"]["solver"] == "multistep"
    own = usual.run["schedule"]
    assert own == asdict(model.profile.schedule)
    assert result.run["weights_hash"] == usual.run["weights_hash"]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_p_of_vertebra_is_between_mean_and_maximum(p: list[float]) -> None:
    value = p_of_vertebra(np.array(p))
    assert value <= max(p) + 1e-9
    if len(p) <= 3:
        assert value == pytest.approx(np.mean(p))


def test_p_of_vertebra_needs_neighbours() -> None:
    """One slice that stands out says less than three in a row."""
    assert p_of_vertebra(np.array([0, 0, 0.9, 0, 0])) == pytest.approx(0.3)
    assert p_of_vertebra(np.array([0, 0.6, 0.6, 0.6, 0])) == pytest.approx(0.6)


# --- Some vertebrae alone, and all ----------------------------------------------------------------

FIVE = {"T11": 33, "T12": 32, "L1": 31, "L2": 30, "L3": 29}


@pytest.fixture(scope="module")
def five() -> Spine:
    """Five boxes of bone, each denser than the one above, two of them with a lesion."""
    grid = Grid((102, 40, 44), np.array(np.diag([2.0, 2.0, 2.0, 1.0])))
    rng = np.random.default_rng(7)
    hu = rng.normal(40, 12, grid.shape)
    hu[:, :4] = -1000
    labels = np.zeros(grid.shape, np.uint8)
    for n, value in enumerate(FIVE.values()):
        top = 95 - 19 * n
        body = (slice(top - 13, top), slice(14, 30), slice(12, 32))
        labels[body] = value
        hu[body] = 450
        inner = tuple(slice(s.start + 1, s.stop - 1) for s in body)
        hu[inner] = 150 + 20 * n + rng.normal(0, 30, hu[inner].shape)
    hu[66:72, 18:25, 16:23] = 20
    hu[28:34, 18:24, 20:26] = 800
    return Volume(hu.astype(np.float32), grid, "ct"), Volume(labels, grid, "bodies")


def own_weights(context: bool) -> Model:
    """Untrained weights for HU, which see a patient's other vertebrae or one alone."""
    architecture = replace(TOY.architecture, contrast=True, context=context)
    confidence = Confidence(
        (-1.0, 0.3, 0.5), -2.0, lytic=(0.0, 4.0, 0.5, *[0.0] * 4), blastic=(1.0, *[0.0] * 6)
    )
    profile = replace(
        TOY,
        architecture=architecture,
        geometry=replace(TOY.geometry, slice_mm=8.0),
        schedule=FAST,
        decision=Decision(gate_p=0.0, healthy_p=0.01, min_pixels=3),
        confidence=confidence if context else Confidence(),
    )
    network = filled(architecture)
    z = network.encode(tiny_images(16)).double()
    coef = torch.linspace(-1, 1, architecture.latent)
    return Model(network, LinearClassifier(coef, 0.5, z.mean(0), z.std(0)), profile, CPU, "")


Whole = tuple[Spine, Model, Result]


def run_bodies(
    scan: Spine, model: Model, *levels: str, names: Mapping[str, int] = FIVE, **watched: Any
) -> Result:
    """Run on bodies that are called by their levels."""
    ct, labels = scan
    there = [(name, value) for name, value in names.items() if (labels.array == value).any()]
    segments = tuple(Segment("", f"{name} body", value, 0) for name, value in there)
    bodies = Segmentation((labels,), segments, "bodies.seg.nrrd")
    return segment_spine(check_inputs(ct, bodies, Options(levels=levels)), model, **watched)


def relabelled(labels: Volume, level: str, value: int) -> Volume:
    array = np.where(labels.array == FIVE[level], np.uint8(value), labels.array)
    return replace(labels, array=array)


@pytest.fixture(scope="module")
def wholes(five: Spine) -> dict[tuple[str, bool], Whole]:
    """Scans in HU or not, with metal in T12 or a label that is more than T12, and all findings.

    The second key: whether the weights see the patient's other vertebrae.
    """
    ct, labels = five
    rescaled = replace(ct, array=ct.array / np.float32(4000) + np.float32(0.5))
    scans = {
        "hu": five,
        "rescaled": (rescaled, labels),
        "metal": (changed(ct, lambda a: a[68:74, 16:33, 20:22].fill(8000)), labels),
        "label": (ct, relabelled(labels, "L1", FIVE["T12"])),
    }
    models = {context: own_weights(context) for context in (True, False)}
    return {
        (name, context): (scan, models[context], run_bodies(scan, models[context]))
        for name, scan in scans.items()
        for context in ((True, False) if name in ("hu", "rescaled") else (True,))
    }


def test_the_whole_run_finds_what_it_should(wholes: dict[tuple[str, bool], Whole]) -> None:
    """Else what follows compares little."""
    for (name, _), (_, _, whole) in wholes.items():
        assert whole.run["hounsfield"] == (name != "rescaled")
        assert sum(bool(v.candidates) for v in whole.vertebrae) >= 3
    assert vertebra(wholes["metal", True][2], "T12").reason.startswith("metal in ")
    assert "more than one vertebra" in vertebra(wholes["label", True][2], "T12").reason


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    which=st.sampled_from(
        [("hu", True), ("rescaled", True), ("metal", True), ("label", True), ("rescaled", False)]
    ),
    chosen=st.sets(st.sampled_from(["T11", "L2", "L3"]), min_size=1),
)
@example(which=("hu", True), chosen={"L2"})
@example(which=("rescaled", True), chosen={"L3"})
@example(which=("hu", False), chosen={"L3"})
@example(which=("rescaled", False), chosen={"T11"})
@example(which=("metal", True), chosen={"T12", "L2"})
def test_a_vertebra_is_the_same_alone_and_among_all(
    which: tuple[str, bool], chosen: set[str], wholes: dict[tuple[str, bool], Whole]
) -> None:
    scan, model, whole = wholes[which]
    result = run_bodies(scan, model, *chosen)
    assert {v.level for v in result.vertebrae} == chosen
    assert result.run["hounsfield"] == whole.run["hounsfield"]
    for found in result.vertebrae:
        assert found == vertebra(whole, found.level)
    for level, seen in result.evidence.items():
        assert np.array_equal(seen.difference, whole.evidence[level].difference)


def test_what_cannot_be_analysed_is_no_company_either(
    wholes: dict[tuple[str, bool], Whole],
) -> None:
    """A vertebra with metal in it is as one that nobody outlined."""
    (ct, labels), model, whole = wholes["metal", True]
    (found,) = run_bodies((ct, relabelled(labels, "T12", 0)), model, "L2").vertebrae
    assert found == vertebra(whole, "L2")
    alone = labels
    for level in set(FIVE) - {"L2"}:
        alone = relabelled(alone, level, 0)
    (lone,) = run_bodies((ct, alone), model).vertebrae
    assert lone.p_malignant != pytest.approx(found.p_malignant, abs=1e-3)


def test_a_corrected_level_is_among_its_others_once(
    wholes: dict[tuple[str, bool], Whole],
) -> None:
    """L3 is called L4 and run again: the same bone in the same company."""
    scan, model, whole = wholes["hu", True]
    names = {"L4" if level == "L3" else level: value for level, value in FIVE.items()}
    (found,) = run_bodies(scan, model, "L4", names=names).vertebrae
    before = vertebra(whole, "L3")
    assert (found.level, found.p_malignant) == ("L4", before.p_malignant)
    assert [c.score for c in found.candidates] == [c.score for c in before.candidates] != []


def test_what_is_made_ready_for_one_vertebra(
    wholes: dict[tuple[str, bool], Whole],
) -> None:
    """All are for weights that compare, and for a scale that must be found; one is reported."""
    for name, context, bodies in (
        ("hu", True, [*FIVE]),
        ("hu", False, ["L1"]),
        ("rescaled", False, ["L1", "T11", "T12", "L2", "L3"]),
    ):
        scan, model, _ = wholes[name, context]
        said: list[Event] = []
        result = run_bodies(scan, model, "L1", on_event=said.append)
        steps = [e for e in said if isinstance(e, Progress)]
        assert [e.level for e in steps if e.step == "body"] == bodies
        first = [e.level for e in steps if e.step == "encode" and e.seconds_left is None]
        assert first == ([*FIVE] if context else [])
        assert {e.level for e in steps if e.step == "edit"} == {"L1"}
        fractions = [e.fraction for e in steps]
        assert fractions == sorted(fractions) and fractions[-1] == pytest.approx(1)
        assert [e.levels for e in said if isinstance(e, Started)] == [("L1",)]
        assert [e.level for e in said if isinstance(e, VertebraDone)] == ["L1"]
        assert result.run["finished"] == [*result.evidence] == ["L1"]


@pytest.mark.parametrize("step", ["body", "encode"])
def test_a_stop_is_heard_while_the_others_are_looked_at(
    step: str, wholes: dict[tuple[str, bool], Whole]
) -> None:
    scan, model, _ = wholes["hu", True]
    said: list[Event] = []

    def enough() -> bool:
        return any(isinstance(e, Progress) and (e.level, e.step) == ("L2", step) for e in said)

    result = run_bodies(scan, model, "L1", on_event=said.append, should_stop=enough)
    told = [e.level for e in said if isinstance(e, Progress)]
    assert (result.run["finished"], result.run["stopped"], told[-1]) == ([], True, "L2")
