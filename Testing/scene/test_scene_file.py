"""Saved scenes from anywhere: the good one opens, the hostile one reaches nothing outside."""

from __future__ import annotations

import http.server
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from helpers.scene import Slicer, open_scene
from hideseekseg.errors import InputError

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


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """As on a disk that is full: whatever grows above so many bytes cannot be written."""
    resource = pytest.importorskip("resource", reason="Windows has no such limit")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


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
