"""Saved scenes from anywhere: the good one opens, the hostile one reaches nothing outside."""

from __future__ import annotations

import http.server
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from helpers.full_disk import no_file_above
from helpers.scene import Slicer, open_scene
from hideseekseg.errors import InputError
from hideseekseg.imaging.volume import Grid, Volume, scan_identity

pytest.importorskip("slicer", reason="slicer-core is missing")

SAVED = Path(__file__).resolve().parents[1] / "data" / "version-0.1" / "browser" / "review.mrb"
Change = Callable[[str, bytes], bytes]


@pytest.fixture
def mrml() -> Iterator[Slicer]:
    with open_scene() as opened:
        yield opened


def changed(folder: Path, change: Change, *extra: tuple[str, bytes]) -> Path:
    """The saved scene with its members changed and others added."""
    path = folder / "review.mrb"
    with zipfile.ZipFile(SAVED) as source, zipfile.ZipFile(path, "w") as made:
        for member in source.infolist():
            made.writestr(member, change(member.filename, source.read(member)))
        for name, content in extra:
            made.writestr(name, content)
    return path


def in_description(old: str, new: str) -> Change:
    def change(name: str, content: bytes) -> bytes:
        if not name.endswith(".mrml"):
            return content
        assert old.encode() in content
        return content.replace(old.encode(), new.encode(), 1)

    return change


def nodes(mrml: Slicer) -> int:
    return int(mrml.scene.GetNumberOfNodes())


def test_a_saved_scene_opens_by_a_relative_path_too(
    mrml: Slicer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hideseekseg.scene.import_data import read_scene
    from hideseekseg.ui.review_session import latest

    monkeypatch.chdir(SAVED.parent)
    read_scene(Path("review.mrb"))
    complaints: list[str] = []
    session = latest(complaints.append)
    assert session is not None and not complaints
    assert session.review.items
    assert session.results.ctNode.GetImageData().GetDimensions()[0] > 1


def test_a_scene_that_names_a_file_elsewhere_is_refused(mrml: Slicer, tmp_path: Path) -> None:
    from hideseekseg.scene.import_data import read_scene

    secret = tmp_path / "secret.nrrd"
    with zipfile.ZipFile(SAVED) as source:
        secret.write_bytes(source.read("review/Data/ct.nrrd"))
    for name in (str(secret), "../../secret.nrrd", f"file://{secret}", "..%2F..%2Fsecret.nrrd"):
        path = changed(tmp_path, in_description('fileName="Data/ct.nrrd"', f'fileName="{name}"'))
        before = nodes(mrml)
        with pytest.raises(InputError, match="lies outside it"):
            read_scene(path)
        assert nodes(mrml) == before


def test_an_image_that_names_its_data_elsewhere_is_refused(mrml: Slicer, tmp_path: Path) -> None:
    from hideseekseg.scene.import_data import read_scene

    def detach(name: str, content: bytes) -> bytes:
        if not name.endswith("ct.nrrd"):
            return content
        head = content[: content.index(b"\n\n")]
        return head + b"\ndata file: /etc/hostname\n\n"

    before = nodes(mrml)
    with pytest.raises(InputError, match=r"damaged image ct\.nrrd"):
        read_scene(changed(tmp_path, detach))
    assert nodes(mrml) == before


def test_no_address_in_a_scene_is_asked(mrml: Slicer, tmp_path: Path) -> None:
    from hideseekseg.scene.import_data import read_scene

    asked: list[str] = []

    class Listener(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    with http.server.HTTPServer(("127.0.0.1", 0), Listener) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/ct.nrrd"
        named = f'fileName="Data/ct.nrrd" uri="{address}"'
        read_scene(changed(tmp_path, in_description('fileName="Data/ct.nrrd"', named)))
        server.shutdown()
    assert asked == []
    assert mrml.scene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode") is not None


@pytest.mark.parametrize(
    ("change", "extra", "cause"),
    [
        (in_description("<MRML", '<!DOCTYPE a [<!ENTITY b "b">]><MRML'), (), "XML entities"),
        (in_description("</MRML>", ""), (), "damaged scene"),
        (lambda name, content: content, (("second.mrml", b"<MRML></MRML>"),), "no single .mrml"),
        (lambda name, content: content, (("../evil.txt", b"evil"),), "outside the archive"),
    ],
    ids=["entities", "cut", "two", "outside"],
)
def test_what_is_no_good_scene_is_one_line(
    mrml: Slicer, tmp_path: Path, change: Change, extra: tuple[tuple[str, bytes], ...], cause: str
) -> None:
    from hideseekseg.scene.import_data import read_scene

    path = changed(tmp_path, change, *extra)
    emptied: list[bool] = []
    with pytest.raises(InputError, match=cause) as caught:
        read_scene(path, before=lambda: emptied.append(True))
    assert "\n" not in str(caught.value)
    assert not emptied, "what was open is removed only for a scene that can be read"
    assert [file.name for file in tmp_path.iterdir()] == ["review.mrb"]


def test_review_is_saved_with_its_scene_or_not_at_all(mrml: Slicer, tmp_path: Path) -> None:
    """No new table beside an old scene: who opens either must see the same review."""
    from hideseekseg.scene.import_data import read_scene
    from hideseekseg.ui.review_session import latest
    from hideseekseg.web.slicer_scene import save_all

    read_scene(SAVED)
    work = latest(lambda text: None)
    assert work is not None
    first, *others = [item for item in work.review.items if item.id in work.results.patches()]
    work.review.judge(first.id, "accepted")
    for item in others:
        work.review.judge(item.id, "rejected")
    work.flush("")
    out = tmp_path / "out"
    files = save_all(work, out, "R. Ader")
    assert {file.name for file in files} == {file.name for file in out.iterdir()}
    before = {file.name: file.read_bytes() for file in files}
    largest = max(len(data) for name, data in before.items() if name != "review.mrb")
    for item in others:
        work.review.judge(item.id, "accepted")
    work.flush("")
    assert 2 * largest < len(before["review.mrb"])
    with no_file_above(2 * largest), pytest.raises(InputError, match="could not pack the scene"):
        save_all(work, out, "R. Ader")
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    save_all(work, out, "R. Ader")
    after = {file.name: file.read_bytes() for file in out.iterdir()}
    assert before.keys() == after.keys() and all(after[name] != before[name] for name in before)


def test_a_review_that_unpacks_to_gigabytes_is_refused(mrml: Slicer) -> None:
    import base64
    import zlib

    from hideseekseg.scene import review_storage

    node = mrml.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    node.GetSegmentation().AddEmptySegment("s")
    bomb = zlib.compressobj(9)
    block = bytes(1 << 24)
    packed = b"".join([*(bomb.compress(block) for _ in range(8)), bomb.flush()])  # 128 MiB
    text = base64.b64encode(packed).decode()
    node.GetSegmentation().GetNthSegment(0).SetTag(review_storage._KEY, text)
    with pytest.raises(ValueError, match="cannot be read: unpacks to more than"):
        review_storage.restore(node)


# Ties at the third digit of places, and turned axes: hashed once as they were read, once as kept.
PLACES = (
    np.diag([0.8125, 0.8125, 2.0625, 1.0]),
    np.array([[0.6, -0.64, 0, 10.0625], [0.48, 0.8, 0, -3.1875], [0, 0, 1.25, 7.0], [0, 0, 0, 1]]),
)


@pytest.fixture(params=PLACES)
def scan(request: pytest.FixtureRequest) -> Volume:
    array = np.random.default_rng(3).integers(-1000, 1500, (6, 8, 10)).astype(np.int16)
    identity = {"series_uid": "1.2.3", "study_date": "20240102"}
    return Volume(array, Grid(array.shape, request.param), "a", identity=identity)


def test_a_copy_of_a_ct_with_other_voxels_is_another_scan(mrml: Slicer, scan: Volume) -> None:
    import slicer
    import slicer.util

    from hideseekseg.scene.import_data import addCt, scanOf

    ct = addCt(scan, "ct")
    said = scanOf(ct)
    assert said == {**scan_identity(scan), "name": "ct"} and said["series_uid"] == "1.2.3"
    copy = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "follow-up")
    copy.Copy(ct)
    copy.SetName("follow-up")
    assert scanOf(copy) == said, "the same voxels are the same scan"
    masked = scan.array.copy()
    masked[0, 0, 0] += 1
    slicer.util.updateVolumeFromArray(copy, masked)
    assert scanOf(copy).keys() == {"name", "sha256"} and scanOf(copy)["name"] == "follow-up"
    assert scanOf(copy)["sha256"] != said["sha256"]
    slicer.util.updateVolumeFromArray(copy, scan.array)
    assert scanOf(copy) == said
    assert scanOf(ct) == said


@pytest.mark.parametrize("change", ["voxels in place", "spacing", "place"])
def test_a_ct_that_was_changed_since_is_another_scan(
    mrml: Slicer, scan: Volume, change: str
) -> None:
    import slicer.util

    from hideseekseg.scene.import_data import addCt, scanOf

    ct = addCt(scan, "ct")
    before = scanOf(ct)
    if change == "voxels in place":
        slicer.util.arrayFromVolume(ct)[2, 3, 4] += 5
        slicer.util.arrayFromVolumeModified(ct)
    elif change == "spacing":
        ct.SetSpacing(1.5, 1.5, 2.0)
    else:
        ct.SetOrigin(1.0, 2.0, 3.0)
    assert scanOf(ct).keys() == {"name", "sha256"}
    assert scanOf(ct)["sha256"] != before["sha256"]


def test_a_ct_of_a_saved_scene_is_the_same_scan(mrml: Slicer, scan: Volume, tmp_path: Path) -> None:
    """Also where its place is kept with other last digits; a copy that was changed is not."""
    import slicer
    import slicer.util

    from hideseekseg.scene.import_data import addCt, read_scene, scanOf

    ct = addCt(scan, "ct")
    said = scanOf(ct)
    copy = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "copy")
    copy.Copy(ct)
    copy.SetName("copy")
    slicer.util.updateVolumeFromArray(copy, np.zeros_like(scan.array))
    path = tmp_path / "saved.mrb"
    assert slicer.mrmlScene.WriteToMRB(str(path))
    slicer.mrmlScene.Clear(0)
    read_scene(path)
    assert scanOf(slicer.util.getNode("ct")) == said
    assert scanOf(slicer.util.getNode("copy"))["sha256"] != said["sha256"]
    assert "series_uid" not in scanOf(slicer.util.getNode("copy"))
