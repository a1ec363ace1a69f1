"""What several tests share: the real data, a small drawn scan, and weights that make no sense."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from desktop import Desktop, open_desktop
from helpers.models import FAST, REFERENCE, TINY, filled, golden, published_network
from helpers.published import FILES, write_checkpoint, write_classifier
from helpers.scene import Slicer, open_scene
from hideseekseg.cli.main import main
from hideseekseg.imaging.volume import Grid, Volume, to_sitk
from hideseekseg.model.classifier import LinearClassifier
from hideseekseg.model.profile import Decision, Geometry, Intensity, Profile, Schedule
from hideseekseg.model.weights import Model, load_model, save_model

# Two threads that wait for each other beside a busy process are ten times slower than one: here,
# and in the processes that tests start, unless they ask for more.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What all tests import is a million objects, among which Python would look for garbage again and
# again.
gc.set_threshold(20_000, 20, 50)

REPOSITORY = Path(__file__).resolve().parents[1]
LEVELS = ("T11", "T12", "L1")
# The files that take longest, longest first: begun last, one of them would keep a process at work
# while the others have nothing left to do.
LONGEST = (
    *("cohort/test_cohort.py", "web/test_app_safety.py", "web/test_app_reviews.py"),
    *("pacs/test_archive.py", "web/test_app_scenes.py", "web/test_app_whole_spine.py"),
    *("web/test_app_views.py", "training/test_training_commands.py", "web/test_app.py"),
    *("web/test_app_comments.py", "web/test_app_gestures.py", "panel/test_panel_run.py"),
    *("panel/test_panel_identity.py", "benchmark/test_app_benchmark.py", "cli/test_cli.py"),
    *("benchmark/test_benchmark_command.py", "training/test_training.py"),
    *("benchmark/test_benchmark_methods.py", "method/test_attribution.py"),
    *("compatibility/test_version_0_1.py", "benchmark/test_speed.py", "model/test_bundle.py"),
    *("training/test_own_weights.py", "repository/test_packages.py", "panel/test_panel_crash.py"),
    *("panel/test_panel_review.py", "repository/test_fuzz.py", "ui/test_child_process.py"),
    *("model/test_sampling.py", "panel/test_module.py", "cli/test_scan_checks.py"),
    *("simulation/test_simulation.py", "training/test_manifest.py", "method/test_pipeline.py"),
    *("cli/test_hostile.py", "cli/test_result_folder.py", "training/test_confidence.py"),
    *("benchmark/test_cross_validation.py", "training/test_distributed.py"),
    *("training/test_evaluation.py", "method/test_each.py"),
    *("web/test_app_dicom.py", "benchmark/test_schedule_agreement.py", "anatomy/test_body.py"),
    *("panel/test_panel_pictures.py", "cli/test_label_checks.py", "web/test_app_parts.py"),
    "ui/test_review_controller.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take longest come first; the tests of a file keep their order."""
    place = {REPOSITORY / "Testing" / name: n for n, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


def pytest_collection_finish() -> None:
    """What was imported stays: no search for garbage looks at it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The real CT and reference values beside a developer's checkout."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the real data of ../shared are not here")
    return folder


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights folder that runs in milliseconds: its findings mean nothing, but they are some."""
    return _save_weights(tmp_path_factory.mktemp("tiny"), FAST)


@pytest.fixture(scope="session")
def calm_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a gate that lets nothing pass: for what is told of a scan, not of lesions.

    Most of the time with the others goes into pictures of what was found.
    """
    return _save_weights(tmp_path_factory.mktemp("calm"), FAST, gate=1.0)


@pytest.fixture(scope="session")
def slow_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with many steps: there is time to press Ctrl-C."""
    schedule = Schedule(invert_steps=15, render_steps=12)
    return _save_weights(tmp_path_factory.mktemp("slow"), schedule)


def _save_weights(folder: Path, schedule: Schedule, gate: float = 0.0) -> Path:
    latent = TINY.latent
    classifier = LinearClassifier(
        torch.linspace(-2, 2, latent), 0.5, torch.zeros(latent), torch.full((latent,), 0.2)
    )
    profile = Profile(
        "tiny",
        TINY,
        Geometry("aligned", TINY.image_size, slice_mm=3.0, body_pixels=10.0),
        Intensity("asinh"),
        schedule,
        Decision(gate_p=gate, candidate_quantile=0.8, min_pixels=3),
    )
    save_model(folder, filled(TINY), classifier, profile)
    return folder


@pytest.fixture(scope="session")
def published_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the importer makes of published files, their weights filled by the reference's formula.

    Full size: 363 MB, removed at the end since pytest would keep it.
    """
    if not REFERENCE.is_dir():
        pytest.skip("the golden values of ../shared/reference are not here")
    files, weights = tmp_path_factory.mktemp("published"), tmp_path_factory.mktemp("imported")
    write_checkpoint(files / FILES[0], published_network().state_dict())
    write_classifier(files, golden("golden_pipeline_seed1"))
    words = ["import-published", *(str(files / name) for name in FILES)]
    assert main([*words, "--out", str(weights), "--licence", "a test's"]) == 0
    (files / FILES[0]).unlink()
    yield weights
    shutil.rmtree(weights)


@pytest.fixture(scope="session")
def published(published_folder: Path) -> Model:
    """The same in memory."""
    return load_model(published_folder, "cpu")


@pytest.fixture(scope="session")
def box_spine() -> tuple[Volume, Volume]:
    """CT in HU, and three boxes of bone in it as bodies, with TotalSegmentator's values."""
    grid = Grid((64, 40, 44), np.array(np.diag([2.0, 2.0, 2.0, 1.0])))
    rng = np.random.default_rng(5)
    hu = rng.normal(40, 12, grid.shape)
    hu[:, :4] = -800
    labels = np.zeros(grid.shape, np.uint8)
    for n, value in enumerate((33, 32, 31)):
        top = 57 - 19 * n
        body = (slice(top - 13, top), slice(14, 30), slice(12, 32))
        labels[body] = value
        hu[body] = 450
        inner = tuple(slice(s.start + 1, s.stop - 1) for s in body)
        hu[inner] = 180 + rng.normal(0, 30, hu[inner].shape)
    hu[46:52, 18:24, 20:26] = 700
    hu[28:34, 18:25, 16:23] = 30
    return Volume(hu.astype(np.int16), grid, "ct"), Volume(labels, grid, "bodies")


@pytest.fixture(scope="session")
def box_files(
    box_spine: tuple[Volume, Volume], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """The same as files."""
    folder = tmp_path_factory.mktemp("box-spine")
    paths = folder / "ct.nii.gz", folder / "bodies.nii.gz"
    for path, volume in zip(paths, box_spine):
        sitk.WriteImage(to_sitk(volume), str(path))
    return paths


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser of a module's own; skips, with the reason, where the app cannot be shown."""
    from helpers import app  # what it needs is not in every environment of the tests

    app.need_all()
    with app.browser() as opened:
        yield opened


@pytest.fixture(autouse=True, scope="session")
def kept_reviews(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of reviews at work is not that of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as changed:
        folder = tmp_path_factory.mktemp("state")
        changed.setenv("XDG_STATE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def mrml() -> Iterator[Slicer]:
    """A real MRML scene, shared by all tests: each one clears what it finds in it."""
    pytest.importorskip("slicer.util", reason="slicer-core is not installed")
    with open_scene() as scene:
        yield scene


@pytest.fixture
def desktop(mrml: Slicer) -> Iterator[Desktop]:
    """Slicer's desktop, without Slicer, on that scene."""
    pytest.importorskip("PySide6.QtUiTools", reason="PySide6-Essentials is not installed")
    with open_desktop(mrml) as opened:
        yield opened
