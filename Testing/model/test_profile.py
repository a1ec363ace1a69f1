"""A profile is read whole or refused: every setting has a type and a range."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from hideseekseg.errors import UserError, WeightsError
from hideseekseg.model.profile import BUNDLE, Profile, Range, from_json, read_profile, to_json

PARTS = ("architecture", "geometry", "intensity", "schedule", "decision")
SETTINGS = [(part, item.name) for part in PARTS for item in fields(get_type_hints(Profile)[part])]
LIBRARY = Path(__file__).resolve().parents[2] / "HideSeekSeg"


def bundled() -> dict[str, Any]:
    return dict(json.loads((BUNDLE / "profile.json").read_text("utf-8")))


def complete() -> dict[str, Any]:
    """The bundled profile with those settings, too, that its file leaves to their default."""
    return {**bundled(), **to_json(read_profile(BUNDLE).profile)}


def stored(folder: Path, data: Any) -> Path:
    (folder / "profile.json").write_text(json.dumps(data), "utf-8")
    return folder


def refusal(folder: Path, data: Any) -> str:
    with pytest.raises(WeightsError) as caught:
        read_profile(stored(folder, data))
    said = str(caught.value)
    assert said.startswith(f"{folder / 'profile.json'}: ") and "\n" not in said
    assert isinstance(caught.value, UserError)
    return caught.value.cause


@pytest.mark.parametrize(("part", "name"), SETTINGS, ids=lambda x: x)
def test_a_setting_of_another_type_is_refused_by_name(part: str, name: str, tmp_path: Path) -> None:
    value = complete()[part][name]
    other = [str(value), [[value]], {"value": value}, float("nan"), float("inf"), -1e400]
    if not isinstance(value, bool):
        other.append(True)
    if name != "central_slices":
        other.append(None)
    for wrong in other:
        if isinstance(value, str) and isinstance(wrong, str):
            wrong = 7
        data = complete()
        data[part][name] = wrong
        cause = refusal(tmp_path, data)
        if name == "name":
            assert "name" in cause
        else:
            assert cause.startswith(f"profile: {part} {name} "), (wrong, cause)


@pytest.mark.parametrize(
    ("part", "name", "value", "cause"),
    [
        ("decision", "threshold", "0.65", 'profile: decision threshold "0.65" is not a number'),
        ("decision", "threshold", 7, "profile: decision threshold 7 is not between 0 and 1"),
        ("decision", "gate_p", -0.1, "is not between 0 and 1"),
        ("decision", "healthy_p", 0, "is not above 0 and at most 0.5"),
        ("decision", "min_pixels", 2.5, "is not a whole number"),
        ("decision", "lytic_floor", -1, "is not at least 0"),
        ("decision", "baseline", "mean", "is not one of edit, hidden"),
        ("schedule", "draws", 0, "is not between 1 and"),
        ("schedule", "noise_level", 1.01, "is not between 0 and 1"),
        ("geometry", "slice_mm", 0, "is not above 0"),
        ("confidence", "vertebra", [0.1], "has 1 numbers, not an intercept and 2 slopes"),
        ("confidence", "lytic", [0.1] * 8, "has 8 numbers, not an intercept and 6 slopes"),
        ("confidence", "blastic", [0.1] * 6, "calibrate the weights again"),
        ("confidence", "features", ["attribution score"] * 6, "on other features than those of"),
        ("confidence", "features", [], "calibrate the weights again"),
        ("geometry", "pixel_mm", [0.8], "does not have 2 values"),
        ("geometry", "size", 47, "is not a multiple of"),
        ("geometry", "size", 96, "is not architecture image_size 48"),
        ("geometry", "central_slices", 0, "is not between 1 and"),
        ("intensity", "width", 0, "is not above 0"),
        ("intensity", "lower", 99.9, "intensity lower is not below upper"),
        ("architecture", "encoder_mult", [], "must not be empty"),
        ("architecture", "decoder_mult", [1, "2"], "is not a whole number"),
        ("architecture", "channels", 10**30, "is not"),
        ("architecture", "mirrored", 1, "is not true or false"),
    ],
)
def test_a_setting_out_of_range_is_refused_with_its_value(
    part: str, name: str, value: Any, cause: str, tmp_path: Path
) -> None:
    data = bundled()
    data[part][name] = value
    assert cause in refusal(tmp_path, data)


def test_steps_that_the_solver_cannot_take_are_refused(tmp_path: Path) -> None:
    data = bundled()
    data["schedule"] |= {"edit": "render", "invert_steps": 300}
    assert "no integer stride through 1000 timesteps" in refusal(tmp_path, data)
    data["schedule"]["solver"] = "multistep"
    read_profile(stored(tmp_path, data))


@pytest.mark.parametrize(
    "data", [[], 3, {"decision": []}, {"name": 3}, {"provenance": 1}, {"x": 1}]
)
def test_what_is_no_profile_is_refused(data: Any, tmp_path: Path) -> None:
    refusal(tmp_path, data)


def test_nesting_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "profile.json").write_text("[" * 200_000, "utf-8")
    with pytest.raises(WeightsError, match="is not valid JSON"):
        read_profile(tmp_path)


def test_every_number_has_a_range_or_may_be_any() -> None:
    """A new setting must say what it may be."""
    free = {"centre", "offset"}
    for part in PARTS:
        cls = get_type_hints(Profile)[part]
        for name, hint in get_type_hints(cls, include_extras=True).items():
            inner = [hint, *get_args(hint), *(y for x in get_args(hint) for y in get_args(x))]
            numeric = any(x in (int, float) for x in inner)
            ranged = any(isinstance(x, Range) for x in inner)
            assert ranged or not numeric or name in free, f"{part} {name}: {get_origin(hint)}"


def test_a_profile_comes_back_with_its_hash(tmp_path: Path) -> None:
    own = read_profile(BUNDLE)
    assert from_json(json.loads(json.dumps(to_json(own.profile)))) == own.profile
    assert set(own.files) == {"autoencoder.safetensors", "classifier.safetensors"}
    assert read_profile(stored(tmp_path, bundled())).hash == own.hash


def test_reading_a_profile_needs_no_torch() -> None:
    code = (
        "import sys; from hideseekseg.model.profile import BUNDLE, read_profile;"
        "read_profile(BUNDLE); print({'torch', 'numpy', 'SimpleITK'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=LIBRARY, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
