"""The kinds of files of ``fuzz.py``: how a small valid one is made, and what reads it."""

from __future__ import annotations

import base64
import importlib.util
import json
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from fuzz import Kind
from helpers.findings import make_ct, make_evidence, make_grid, make_result
from helpers.models import FAST, TINY, filled
from hideseekseg.anatomy.labelling import assign
from hideseekseg.anatomy.segment_names import may_be_vertebra
from hideseekseg.benchmark.cases import read_boxes
from hideseekseg.errors import InputError, WeightsError
from hideseekseg.events import Progress, from_line, to_line
from hideseekseg.files import read_object
from hideseekseg.findings import LesionType
from hideseekseg.imaging.reading import read_ct, read_segmentation
from hideseekseg.imaging.segmentation import Segment, Segmentation
from hideseekseg.imaging.volume import Grid, Volume, to_sitk
from hideseekseg.model.classifier import LinearClassifier
from hideseekseg.model.profile import Decision, Geometry, Intensity, Profile, Schedule
from hideseekseg.model.published.download import _memory
from hideseekseg.model.weights import load_model, save_model
from hideseekseg.output.result_folder import held_by_another, read_vertebra, write_vertebra
from hideseekseg.output.seg_nrrd import write_segmentation
from hideseekseg.output.tables import result_from_json, to_json
from hideseekseg.review.review import Review
from hideseekseg.scene.review_storage import packed, unpacked
from hideseekseg.simulation.source_vertebrae import read_sources
from hideseekseg.training.dataset import load_slices
from hideseekseg.training.manifest import read_manifest
from hideseekseg.training.observations import (
    Observer,
    SeenCandidate,
    SeenVertebra,
    read_observations,
    write_observations,
)
from hideseekseg.training.train import COMPACT
from hideseekseg.training.trainer import TrainingStage, claim, run_stage
from hideseekseg.unpacking import ArchiveLimits, decompress, unpack

GRID = Grid((6, 8, 10), np.diag([0.8, 0.8, 1.5, 1.0]))
RESULT = make_result(make_grid((75, 60, 50), (1.2, 1.1, 2.0)))
LABELS = np.zeros(GRID.shape, np.uint8)
LABELS[1:3, 2:6, 2:8] = 28
LABELS[3:5, 2:6, 2:8] = 29


def image(name: str, labels: bool = False, **options: Any) -> Callable[[Path], None]:
    """Write a small CT, or a label map."""

    def make(folder: Path) -> None:
        array = LABELS if labels else np.arange(480, dtype=np.int16).reshape(GRID.shape)
        sitk.WriteImage(to_sitk(Volume(array, GRID)), str(folder / name), **options)

    return make


def text(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: _write(folder / name, content.encode())


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def told(read: Callable[[Path], object]) -> Callable[[Path], object]:
    """What is specified to raise ValueError in one line raises it as InputError here."""

    def reading(path: Path) -> object:
        try:
            return read(path)
        except ValueError as error:
            raise InputError("value", str(error)) from error

    return reading


def _series(folder: Path) -> None:
    from helpers.dicom import series

    series(folder, [2.5 * n for n in range(5)])


def _dicom_seg(folder: Path) -> None:
    from test_segmentation_formats import dicom_seg

    dicom_seg(folder / "seg.dcm")


def _structures(folder: Path) -> None:
    from test_segmentation_formats import structure_set

    structure_set(folder / "rt.dcm")


def _seg_nrrd(folder: Path) -> None:
    write_segmentation(folder / "a.seg.nrrd", make_grid((75, 60, 50), (1.2, 1.1, 2.0)), RESULT)


def _masks(folder: Path) -> None:
    for name in ("vertebrae_L1.nii.gz", "vertebrae_L2.nii.gz"):
        array = (LABELS == 28 if "L1" in name else LABELS == 29).astype(np.uint8)
        sitk.WriteImage(to_sitk(Volume(array, GRID)), str(folder / name))


PROFILE = Profile(
    "tiny",
    TINY,
    Geometry("aligned", TINY.image_size, slice_mm=3.0, body_pixels=10.0),
    Intensity("asinh"),
    FAST,
    Decision(candidate_quantile=0.8, min_pixels=3),
)


def write_weights(folder: Path, schedule: Schedule = FAST) -> None:
    """Write weights that make no sense."""
    n = TINY.latent
    linear = LinearClassifier(torch.linspace(-2, 2, n), 0.5, torch.zeros(n), torch.ones(n))
    save_model(folder, filled(TINY), linear, replace(PROFILE, schedule=schedule))


def _load_with_hash(path: Path) -> object:
    """As somebody who makes weights, and knows how to write their hashes."""
    import hashlib

    profile = path / "profile.json"
    whole = profile.read_bytes()
    data = json.loads(whole)
    for name in data["files"]:
        data["files"][name] = hashlib.sha256((path / name).read_bytes()).hexdigest()
    profile.write_text(json.dumps(data))
    try:
        return load_model(path, "cpu")
    finally:
        profile.write_bytes(whole)


def _stage(folder: Path, steps: int = 3) -> object:
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 1)

    def losses(*_: Any) -> dict[str, torch.Tensor]:
        return {"loss": module(torch.ones(1, 3)).square().mean()}

    stage = TrainingStage("encoder", steps, 0.01, 0.0, 1)
    return run_stage(stage, module, module.parameters(), losses, folder, lambda now: None)


def _begin(folder: Path) -> None:
    _stage(folder)


def _shard(folder: Path) -> None:
    count, size = 6, 16
    masks = np.zeros((count, size, size), np.uint8)
    masks[:, 4:12, 4:12] = 1
    masks[:, 5:8, 5:8] |= 2
    image = np.full((count, size, size), 200, np.int16)
    columns = {
        **{"image": image, "twin": image, "masks": masks, "label": np.ones(count, np.uint8)},
        **{"patient": np.array(["a"] * 3 + ["b"] * 3), "level": np.array(["L1"] * count)},
        **{"vertebra": np.repeat(np.arange(2, dtype=np.int32), 3)},
        **{"slice": np.arange(count, dtype=np.int16), "simulated_patient": np.zeros(count, int)},
        **{"spacing": np.ones((count, 3), np.float32)},
    }
    np.savez(folder / "shard-1.npz", **columns)  # type: ignore[arg-type]


def _vertebra(folder: Path) -> None:
    ct = make_ct(make_grid((75, 60, 50), (1.2, 1.1, 2.0)))
    evidence = make_evidence(ct, RESULT)["T10"]
    write_vertebra(folder / "T10.npz", RESULT.vertebrae[0], evidence)


def _review(folder: Path) -> None:
    review = Review(0.4)
    for vertebra in RESULT.vertebrae:
        review.add_vertebra(vertebra)
    review.judge("T10-1", "accepted")
    review.comment("T10-2", "seen")
    added = review.add_missed("L1", "lytic")
    review.switch_type(added)
    review.undo()
    _write(folder / "review", json.dumps(review.to_json()).encode())


def _go_through(review: Review) -> object:
    """All that a window asks of a review."""
    while review.undo() is not None:
        pass
    while review.redo() is not None:
        pass
    for item in review.items:
        review.judge(item.id, "rejected")
    return review.items, review.summary(), review.states(), review.counts(), review.to_json()


def _read_review(path: Path) -> object:
    return _go_through(Review.from_json(read_object(path)))


def _read_mapping(path: Path) -> object:
    volume = Volume(LABELS, GRID, "labels")
    segments = (Segment("", "", 28, 0), Segment("", "", 29, 0))
    return assign(Segmentation((volume,), segments, "labels"), str(path))


def _evidence(folder: Path) -> None:
    ct = make_ct(make_grid((75, 60, 50), (1.2, 1.1, 2.0)))
    _write(folder / "evidence", packed(make_evidence(ct, RESULT)["L1"]).encode())


def _archive(folder: Path) -> None:
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("scene/a.mrml", '<MRML version="5"><Volume id="v" fileName="a.nrrd"/></MRML>')
        made.writestr("scene/a.nrrd", "NRRD0004\n")


def _unpack(path: Path) -> object:
    import tempfile

    with tempfile.TemporaryDirectory() as inside:
        return unpack(path, Path(inside), ArchiveLimits(10, 1 << 22))


def _published(folder: Path) -> None:
    from helpers.published import write_classifier

    n = 512
    values = {"coef": np.ones(n), "intercept": np.ones(1), "mean": np.ones(n), "scale": np.ones(n)}
    write_classifier(folder, values)
    torch.save({"state_dict": {"ema_model.a": torch.ones(3)}}, folder / "last.ckpt")


def _import(path: Path) -> object:
    """The checkpoint is not a whole one: the two pickles are read nevertheless."""
    from hideseekseg.model.published.importer import _estimator, read_autoencoder

    _estimator(path / "classifier_lr.pkl", "LogisticRegression")
    _estimator(path / "scaler.pkl", "StandardScaler")
    try:
        return read_autoencoder(path / "last.ckpt")
    except WeightsError as error:
        if "unknown to the profile's architecture" in str(error):
            return None
        raise


def _observations(folder: Path) -> None:
    candidate = SeenCandidate("lytic", 0.5, (0.5,) * 6, 9, 5, (0.4,))
    sizes: dict[LesionType, tuple[float, ...]] = {"lytic": (5.0,), "blastic": ()}
    voxels: dict[LesionType, int] = {"lytic": 9, "blastic": 0}
    seen = SeenVertebra("a", "a", True, 0.3, 1.0, sizes, voxels, (candidate,))
    observer = Observer("0" * 64, COMPACT, ("b",), "12 patients are counted and not named")
    write_observations(folder / "seen.json", observer, [seen])


def _read_line(path: Path) -> object:
    event = from_line(path.read_bytes().decode("utf-8", "replace"))
    return None if event is None else to_line(event)


def _candidates(folder: Path) -> None:
    _write(folder / "candidates.json", json.dumps(to_json(RESULT)).encode())


MANIFEST = "image,mask,label,patient,level\na.nii,b.nii,1,p1,L1\na.nii,b.nii,healthy,p1,L2\n"
SOURCES = "ct,segmentation,labels,patient,split\na.nii,b.nii,verse,p1,train\n"
BOXES = "patient,x,y,z,width,depth,height\np1,1,2,3,4,5,6\n"
MAPPING = '{"28": "L4", "29": "L3 body", "7": "other"}'
SETTINGS = '{"slices": "", "steps": 3, "seed": 1}'


def _decompress(path: Path) -> object:
    return decompress(base64.b64decode(path.read_bytes()), 1 << 20)


def _labels(path: Path) -> object:
    return assign(read_segmentation(path, may_be_vertebra), "totalsegmentator")


KINDS = [
    Kind("ct.nii", image("ct.nii"), read_ct),
    Kind("ct.nii.gz", image("ct.nii.gz"), read_ct),
    Kind("ct.nrrd", image("ct.nrrd"), read_ct),
    Kind("packed.nrrd", image("packed.nrrd", useCompression=True), read_ct),
    Kind("ct.mha", image("ct.mha"), read_ct),
    Kind("packed.mha", image("packed.mha", useCompression=True), read_ct),
    Kind("ct.nhdr", image("ct.nhdr"), lambda path: read_ct(path / "ct.nhdr"), "ct.nhdr"),
    Kind("ct.mhd", image("ct.mhd"), lambda path: read_ct(path / "ct.mhd"), "ct.mhd"),
    Kind("series", _series, read_ct, "002.dcm"),
    Kind("labels.nii.gz", image("labels.nii.gz", True), _labels),
    Kind("labels.nrrd", image("labels.nrrd", True), _labels),
    Kind("a.seg.nrrd", _seg_nrrd, read_segmentation),
    Kind("masks", _masks, lambda path: read_segmentation(path), "vertebrae_L1.nii.gz"),
    Kind("seg.dcm", _dicom_seg, read_segmentation),
    Kind("rt.dcm", _structures, read_segmentation),
    Kind("weights", write_weights, lambda path: load_model(path, "cpu"), "profile.json"),
    Kind("tensors", write_weights, _load_with_hash, "autoencoder.safetensors"),
    Kind("classifier", write_weights, _load_with_hash, "classifier.safetensors"),
    Kind("checkpoint", _begin, lambda path: _stage(path, 4), "encoder-checkpoint.pt"),
    Kind("shards", _shard, lambda path: load_slices(path, PROFILE), "shard-1.npz"),
    Kind("T10.npz", _vertebra, read_vertebra),
    Kind("folder", _candidates, lambda path: held_by_another(path, {}), "candidates.json"),
    Kind("candidates.json", _candidates, told(lambda path: result_from_json(read_object(path)))),
    Kind("review", _review, told(_read_review)),
    Kind("evidence", _evidence, lambda path: unpacked(path.read_bytes().decode("latin-1"))),
    Kind("tag", text("tag", base64.b64encode(zlib.compress(b"{}")).decode()), told(_decompress)),
    Kind("map.json", text("map.json", MAPPING), _read_mapping),
    Kind("event", text("event", to_line(Progress("L1", "edit", 1, 2, 0.5))), _read_line),
    Kind("a.zip", _archive, _unpack),
    Kind("published", _published, _import, "classifier_lr.pkl"),
    Kind("last.ckpt", _published, _import, "last.ckpt"),
    Kind("downloads", text("downloads.json", '{"a": {"address": "b"}}'), _memory, "downloads.json"),
    Kind("seen.json", _observations, read_observations),
    Kind("manifest.csv", text("manifest.csv", MANIFEST), read_manifest),
    Kind("sources.csv", text("sources.csv", SOURCES), lambda path: read_sources(path, path.parent)),
    Kind("boxes.csv", text("boxes.csv", BOXES), read_boxes),
    Kind(
        "settings",
        text("settings.json", SETTINGS),
        lambda path: claim(path, "", json.loads(SETTINGS)),
        "settings.json",
    ),
]


def _scene_kinds() -> list[Kind]:
    from hideseekseg.scene.import_data import checked_scene

    def read(path: Path) -> object:
        with checked_scene(path) as description:
            return description.read_bytes()

    return [Kind("scene.mrb", lambda folder: _scene(folder / "scene.mrb"), read)]


def _scene(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as made:
        made.writestr("scene/a.mrml", '<MRML version="5"><Volume id="v" fileName="a.nrrd"/></MRML>')


if importlib.util.find_spec("slicer") is not None:
    KINDS += _scene_kinds()
