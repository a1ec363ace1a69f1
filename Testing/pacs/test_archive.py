"""``hideseekseg pacs`` against archives: a real Orthanc with DICOMweb, and a real DIMSE server."""

from __future__ import annotations

import copy
import io
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hideseekseg.cli.main import main
from hideseekseg.cohort.readings import read_findings
from hideseekseg.errors import ArchiveError, InputError
from hideseekseg.imaging.reading import read_ct, read_segmentation
from hideseekseg.imaging.volume import Grid, Volume
from hideseekseg.output.review_export import export_accepted
from hideseekseg.pacs.archive import open_archive, read_config
from hideseekseg.pacs.transfer import make_objects

pydicom: Any = pytest.importorskip("pydicom", reason="pydicom is not installed")
hd: Any = pytest.importorskip("highdicom", reason="highdicom is not installed")
requests: Any = pytest.importorskip("requests", reason="requests is not installed")
pytest.importorskip("dicomweb_client", reason="dicomweb-client is not installed")
net: Any = pytest.importorskip("pynetdicom", reason="pynetdicom is not installed")
from helpers.dicom import ROOT, write_series  # noqa: E402

LIBRARY = Path(__file__).resolve().parents[2] / "HideSeekSeg"
PLUGINS = ("/usr/share/orthanc/plugins", "/usr/local/share/orthanc/plugins")
USER, PASSWORD = "reader", "not-for-anyone"
OWN, MOVED_TO = "HIDESEEKSEG", "HIDEMOVE"
LEVELS = {33: "T11", 32: "T12", 31: "L1"}
JAPANESE, CYRILLIC, NOBODY, TWO = (f"{ROOT}.{n}1" for n in (1, 2, 3, 4))


def free_port() -> int:
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass
class Orthanc:
    """A running Orthanc; ``rest`` is its own interface, for what a test must know."""

    folder: Path
    http: int
    dicom: int
    back: int

    def rest(self, path: str) -> Any:
        address = f"http://127.0.0.1:{self.http}/{path}"
        return requests.get(address, auth=(USER, PASSWORD), timeout=20).json()

    def upload(self, folder: Path) -> None:
        address = f"http://127.0.0.1:{self.http}/instances"
        with requests.Session() as session:
            for file in sorted(folder.rglob("*.dcm")):
                sent = session.post(address, data=file.read_bytes(), auth=(USER, PASSWORD))
                sent.raise_for_status()

    def objects(self, study: str) -> dict[str, list[Any]]:
        """Everything that is held of a study, by modality."""
        found: dict[str, list[Any]] = {}
        for one in self.rest("studies?expand"):
            if one["MainDicomTags"]["StudyInstanceUID"] != study:
                continue
            for instance in self.rest(f"studies/{one['ID']}/instances"):
                address = f"http://127.0.0.1:{self.http}/instances/{instance['ID']}/file"
                content = requests.get(address, auth=(USER, PASSWORD), timeout=20).content
                dataset = pydicom.dcmread(io.BytesIO(content))
                dataset.orthanc = instance["ID"]
                found.setdefault(str(dataset.Modality), []).append(dataset)
        return found

    def uids(self, study: str) -> set[str]:
        return {x.SOPInstanceUID for group in self.objects(study).values() for x in group}

    def delete(self, instance: str) -> None:
        address = f"http://127.0.0.1:{self.http}/instances/{instance}"
        requests.delete(address, auth=(USER, PASSWORD), timeout=20).raise_for_status()

    def config(self, kind: str, **more: Any) -> Path:
        """Write a configuration file: ``web``, or ``get`` and ``move`` by DIMSE."""
        made: dict[str, Any]
        if kind == "web":
            secret = self.folder / "secret"
            secret.write_text(PASSWORD + "\n", "utf-8")
            secret.chmod(0o600)
            address = f"http://127.0.0.1:{self.http}/dicom-web"
            made = {"dicomweb": {"url": address, "user": USER, "password": {"file": "secret"}}}
        else:
            made = {"dimse": {"host": "127.0.0.1", "port": self.dicom, "ae_title": "ORTHANC"}}
            made["dimse"] |= {"retrieve": kind}
            if kind == "move":
                where = {"listen_host": "127.0.0.1", "listen_port": self.back}
                made["dimse"] |= {"own_ae_title": MOVED_TO, **where}
        (section,) = made
        made[section] |= more
        file = self.folder / f"{kind}-{abs(hash(str(more)))}.json"
        file.write_text(json.dumps({"timeout": 20, **made}), "utf-8")
        return file


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    program = shutil.which("Orthanc")
    plugins = [p for p in PLUGINS if list(Path(p).glob("libOrthancDicomWeb*"))]
    if not program or not plugins:
        pytest.skip("Orthanc and its DICOMweb plugin are not installed (Debian: orthanc-dicomweb)")
    folder = tmp_path_factory.mktemp("orthanc")
    made = Orthanc(folder, free_port(), free_port(), free_port())
    settings = {
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "Plugins": [str(next(Path(plugins[0]).glob("libOrthancDicomWeb*")))],
        "HttpPort": made.http,
        "DicomPort": made.dicom,
        "DicomAet": "ORTHANC",
        "DefaultEncoding": "Utf8",  # of its answers: names of any script
        "DicomCheckCalledAet": True,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: PASSWORD},
        "DicomModalities": {
            "own": [OWN, "127.0.0.1", free_port()],
            "moved": [MOVED_TO, "127.0.0.1", made.back],
        },
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings), "utf-8")
    log = (folder / "log").open("w")
    words = [program, str(folder / "orthanc.json")]
    process = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        for _ in range(200):
            try:
                made.rest("system")
                break
            except (requests.RequestException, ValueError):
                assert process.poll() is None, (folder / "log").read_text("utf-8")
                time.sleep(0.1)
        yield made
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def write_study(
    folder: Path, ct: Volume, labels: Volume, number: int, compressed: bool = False, **fields: Any
) -> Path:
    """Write a CT series (UIDs in ``number``) and a SEG of its vertebrae, as another tool makes."""
    usual: dict[str, Any] = {"StudyInstanceUID": f"{ROOT}.{number}1", "number": 1000 * number}
    usual |= {"SeriesInstanceUID": f"{ROOT}.{number}2", "FrameOfReferenceUID": f"{ROOT}.{number}3"}
    for keyword in ("PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyTime"):
        usual[keyword] = ""
    write_series(folder / "ct", ct, **{**usual, "ReferringPhysicianName": "", **fields})
    files = sorted((folder / "ct").iterdir())
    if compressed:
        for file in files:
            one = pydicom.dcmread(file)
            one.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
            one.save_as(file)
    code = hd.sr.CodedConcept
    values = [v for v in LEVELS if (labels.array == v).any()]
    described = [
        hd.seg.SegmentDescription(
            segment_number=n,
            segment_label=f"vertebrae_{LEVELS[value]}",
            segmented_property_category=code("123037004", "SCT", "Anatomical Structure"),
            segmented_property_type=code("51282000", "SCT", "Vertebra"),
            algorithm_type="MANUAL",
        )
        for n, value in enumerate(values, 1)
    ]
    pixels = np.zeros(labels.array.shape, np.uint8)
    for n, value in enumerate(values, 1):
        pixels[labels.array == value] = n
    made = hd.seg.Segmentation(
        [pydicom.dcmread(file) for file in files],
        pixels,
        "BINARY",
        described,
        series_instance_uid=f"{ROOT}.{number}4",
        series_number=7,
        sop_instance_uid=f"{ROOT}.{number}5",
        instance_number=1,
        manufacturer="Other",
        manufacturer_model_name="Other",
        software_versions="1",
        device_serial_number="1",
        series_description="vertebrae",
        specific_character_set="ISO_IR 192",
    )
    (folder / "seg").mkdir()
    made.save_as(folder / "seg" / "seg.dcm")
    return folder


def cut(volume: Volume, first: int, last: int) -> Volume:
    """Slices of a volume; where they lie does not matter here."""
    array = volume.array[first:last]
    return replace(volume, array=array, grid=Grid(array.shape, volume.grid.ijk_to_lps))


@pytest.fixture(scope="module")
def studies(
    box_spine: tuple[Volume, Volume], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Studies by UID: a whole spine, compressed; and few slices of one, for what needs no more."""
    folder = tmp_path_factory.mktemp("studies")
    few = [cut(volume, 40, 48) for volume in box_spine]
    whole: dict[str, Any] = {
        "PatientName": "Yamada^Tarou=山田^太郎",
        "PatientID": "P-1",
        "StudyDate": "20250304",
    }
    write_study(folder / "1", *box_spine, 1, True, SpecificCharacterSet="ISO_IR 192", **whole)
    cyrillic: dict[str, Any] = {"SpecificCharacterSet": "ISO_IR 144", "PatientName": "Пётр^Иванов"}
    write_study(folder / "2", few[0], few[1], 2, True, PatientID="Ж-2", **cyrillic)
    nobody: dict[str, Any] = {"PatientName": "", "PatientID": "", "PatientIdentityRemoved": "YES"}
    write_study(folder / "3", few[0], few[1], 3, **nobody)
    write_study(folder / "4", few[0], few[1], 4, PatientID="P4")
    other = {"StudyInstanceUID": TWO, "SeriesInstanceUID": f"{ROOT}.49", "SeriesNumber": 9}
    write_series(folder / "4" / "ct9", few[0], number=4900, PatientID="P4", **other)
    return {f"{ROOT}.{n}1": folder / str(n) for n in (1, 2, 3, 4)}


@pytest.fixture(scope="module")
def archive(orthanc: Orthanc, studies: dict[str, Path]) -> Orthanc:
    for folder in studies.values():
        orthanc.upload(folder)
    return orthanc


class Peer:
    """A DIMSE archive of our own, with real associations, that can go wrong as archives do.

    ``held`` are its instances; ``says`` is the number of instances that it claims of each series
    (None: the truth); ``changed`` changes what it sends; ``after`` is how many it sends before it
    falls silent; ``asked`` lists the instances of each C-GET, ``stored`` what it was sent.
    """

    def __init__(self, files: list[Path], tls: Any = None) -> None:
        self.held = [pydicom.dcmread(file) for file in sorted(files)]
        self.says: int | None = None
        self.changed: Callable[[Any], Any] = lambda dataset: dataset
        self.after = 10**6
        self.asked: list[list[str]] = []
        self.stored: list[Any] = []
        self.refuses = 0  # the status that it answers each C-STORE with
        self.port = free_port()
        self._released = threading.Event()
        self._tls = tls

    def __enter__(self) -> Peer:
        entity = net.AE(ae_title="PEER")
        entity.require_called_aet = True
        for context in net.QueryRetrievePresentationContexts:
            entity.add_supported_context(context.abstract_syntax)
        for context in net.AllStoragePresentationContexts:
            syntaxes = [*context.transfer_syntax, pydicom.uid.RLELossless]
            entity.add_supported_context(context.abstract_syntax, syntaxes, True, True)
        handlers = [
            (net.evt.EVT_C_FIND, self._find),
            (net.evt.EVT_C_GET, self._get),
            (net.evt.EVT_C_STORE, self._store),
        ]
        where = ("127.0.0.1", self.port)
        self._server = entity.start_server(
            where, block=False, evt_handlers=handlers, ssl_context=self._tls
        )
        return self

    def __exit__(self, *error: object) -> None:
        self._released.set()
        self._server.shutdown()

    def config(self, folder: Path, **more: Any) -> Path:
        made = {"host": "127.0.0.1", "port": self.port, "ae_title": "PEER", **more}
        file = folder / f"peer-{len(list(folder.iterdir()))}.json"
        file.write_text(json.dumps({"dimse": made, "timeout": 20}), "utf-8")
        return file

    def _find(self, event: Any) -> Iterator[tuple[int, Any]]:
        level = {"STUDY": "Study", "SERIES": "Series", "IMAGE": "SOP"}[
            event.identifier.QueryRetrieveLevel
        ]
        found: dict[str, list[Any]] = {}
        for one in self.held:
            if all(
                str(one.get(e.keyword)) == str(e.value)
                for e in event.identifier
                if e.value and e.keyword.endswith("InstanceUID")
            ):
                found.setdefault(one[f"{level}InstanceUID"].value, []).append(one)
        for group in found.values():
            answer = pydicom.Dataset()
            for element in event.identifier:
                setattr(answer, element.keyword, group[0].get(element.keyword))
            answer.QueryRetrieveLevel = event.identifier.QueryRetrieveLevel
            answer.SpecificCharacterSet = "ISO_IR 192"
            answer.NumberOfSeriesRelatedInstances = self.says or len(group)
            yield 0xFF00, answer

    def _get(self, event: Any) -> Iterator[Any]:
        asked = event.identifier.SOPInstanceUID
        asked = [asked] if isinstance(asked, str) else list(asked)
        self.asked.append(asked)
        sent = [x for x in self.held if x.SOPInstanceUID in asked]
        yield len(sent)
        for n, one in enumerate(sent):
            if n >= self.after:
                self._released.wait(20)
                return
            yield 0xFF00, self.changed(one)

    def _store(self, event: Any) -> int:
        self.stored.append(event.dataset)
        return self.refuses


class Web:
    """An HTTP server that answers as it is told, and notes what it was asked."""

    def __init__(
        self, status: int, body: bytes = b"[]", tls: Any = None, post: int = 405, **headers: str
    ) -> None:
        self.seen: list[tuple[str, str]] = []
        own = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                own.seen.append((self.path, self.headers.get("Authorization", "")))
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(post)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *words: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.scheme = "http"
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
            self.scheme = "https"
        self.port = self._server.server_port

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/dicom-web"

    def __enter__(self) -> Web:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def write_config(folder: Path, section: dict[str, Any], name: str = "dicomweb") -> Path:
    file = folder / f"config-{len(list(folder.iterdir()))}.json"
    file.write_text(json.dumps({name: section, "timeout": 5}), "utf-8")
    return file


def pacs(step: str, config: Path, *words: object) -> int:
    return main(["pacs", step, "--archive", str(config), *map(str, words)])


def refusal(capsys: pytest.CaptureFixture[str], step: str, config: Path, *words: object) -> str:
    capsys.readouterr()
    assert pacs(step, config, *words) == 2
    out, err = capsys.readouterr()
    *_, line = err.splitlines()
    assert not out and line.startswith("hideseekseg: ") and "Traceback" not in err
    assert PASSWORD not in err and "SESAME" not in err, "a secret was printed"
    return line


def same_files(folder: Path, source: Path) -> bool:
    """Every attribute of every instance, pixels as they were compressed."""
    ours = {x.SOPInstanceUID: x for x in map(pydicom.dcmread, folder.glob("*.dcm"))}
    theirs = {x.SOPInstanceUID: x for x in map(pydicom.dcmread, source.glob("*.dcm"))}
    syntaxes = [
        {u: str(x.file_meta.TransferSyntaxUID) for u, x in d.items()} for d in (ours, theirs)
    ]
    return ours == theirs and syntaxes[0] == syntaxes[1]


@pytest.mark.parametrize("kind", ["web", "get"])
def test_studies_are_found_and_names_are_printed_when_asked_for(
    archive: Orthanc, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = archive.config(kind)
    assert pacs("find", config, "--patient", "P-1") == 0
    out = capsys.readouterr().out
    assert out.strip() in {f"{JAPANESE}  20250304, {both}" for both in ("CT/SEG", "SEG/CT")}
    assert pacs("find", config, "--name", "Yamada*", "--patient-names", "--study", JAPANESE) == 0
    first, *series = capsys.readouterr().out.splitlines()
    assert "Yamada Tarou=山田 太郎" in first and first.endswith("P-1")
    assert [line.split()[0] for line in series] == ["CT", "SEG"]
    assert "2: bone, 64 instances" in series[0] and "7: vertebrae, 1 instances" in series[1]
    assert pacs("find", config, "--date", "20240101-20241231", "--patient-names") == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 3 and "Пётр Иванов, Ж-2" in out
    assert pacs("find", config, "--accession", "nothing 1") == 0
    assert "no study matches; some archives find blanks" in capsys.readouterr().err
    assert pacs("find", config) == 2


@pytest.mark.parametrize("kind", ["web", "get", "move"])
def test_what_is_fetched_is_what_the_archive_holds(
    archive: Orthanc, studies: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    """Compressed as it was, names as they were written, and whole."""
    config = archive.config(kind)
    assert pacs("fetch", config, "--study", CYRILLIC, "--out", tmp_path / "out") == 0
    assert same_files(tmp_path / "out" / "ct", studies[CYRILLIC] / "ct")
    assert same_files(tmp_path / "out" / "segmentation", studies[CYRILLIC] / "seg")
    ct = read_ct(tmp_path / "out" / "ct", patient_names=True)
    assert ct.identity["patient_name"] == "Пётр Иванов" and ct.grid.shape[0] == 8
    assert pacs("fetch", config, "--study", NOBODY, "--out", tmp_path / "nobody") == 0
    assert same_files(tmp_path / "nobody" / "ct", studies[NOBODY] / "ct")


@pytest.fixture(scope="module")
def run_once(
    archive: Orthanc, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run on the study of a whole spine, whose objects were sent back."""
    out = tmp_path_factory.mktemp("run") / "study"
    words = ("--study", JAPANESE, "--out", out, "--weights", tiny_weights, "--levels", "T12")
    before = archive.uids(JAPANESE)
    assert pacs("run", archive.config("web"), *words) == 0
    assert archive.uids(JAPANESE) == before, "something was sent unasked"
    assert {"report.html", "report.pdf"} < {x.name for x in (out / "result").iterdir()}
    assert pacs("send", archive.config("web"), out) == 0
    return out


def test_a_run_sends_back_what_it_found(run_once: Path, archive: Orthanc) -> None:
    held = archive.objects(JAPANESE)
    (seg,) = [x for x in held["SEG"] if x.Manufacturer == "HideSeekSeg"]
    (sr,), (pdf,) = held["SR"], held["DOC"]
    assert len(held["CT"]) == 64
    for one in (seg, sr, pdf):
        assert one.PatientName == "Yamada^Tarou=山田^太郎" and one.PatientID == "P-1"
        assert one.StudyInstanceUID == JAPANESE and one.StudyDate == "20250304"
    found = read_segmentation(run_once / "result" / "lesions.seg.nrrd")
    seg.save_as(run_once / "held.dcm")
    held_here = read_segmentation(run_once / "held.dcm")
    assert len(found.segments) == len(held_here.segments) > 0
    ours = {s.name: int(found.mask(s).sum()) for s in found.segments}
    assert {s.name: int(held_here.mask(s).sum()) for s in held_here.segments} == ours
    cited = {str(x.ReferencedSOPInstanceUID) for x in pdf.SourceInstanceSequence}
    assert cited == {str(x.SOPInstanceUID) for x in held["CT"]}
    assert pdf.MIMETypeOfEncapsulatedDocument == "application/pdf"
    content = pdf.EncapsulatedDocument[: pdf.EncapsulatedDocumentLength]
    assert content.startswith(b"%PDF-") and content.rstrip().endswith(b"%%EOF")
    assert str(seg.SOPInstanceUID) in str(sr.CurrentRequestedProcedureEvidenceSequence)


def test_our_own_segmentation_is_not_taken_for_one_of_vertebrae(
    run_once: Path, archive: Orthanc, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pacs("fetch", archive.config("web"), "--study", JAPANESE, "--out", tmp_path / "x") == 0
    (file,) = (tmp_path / "x" / "segmentation").iterdir()
    assert file.name == f"{ROOT}.15.dcm"
    capsys.readouterr()
    line = refusal(capsys, "fetch", archive.config("web"), "--study", TWO, "--out", tmp_path / "x")
    assert f"x: contains another study ({JAPANESE}): choose another folder" in line


def test_of_several_series_the_segmentations_own_is_taken(
    archive: Orthanc, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = archive.config("web")
    assert pacs("fetch", config, "--study", TWO, "--out", tmp_path / "a") == 0
    assert read_ct(tmp_path / "a" / "ct").identity["series_uid"] == f"{ROOT}.42"
    line = refusal(
        capsys, "fetch", config, "--study", TWO, "--out", tmp_path / "b", "--series", "9"
    )
    assert "is of another series, in another frame of reference, than the CT" in line
    line = refusal(
        capsys, "fetch", config, "--study", TWO, "--out", tmp_path / "c", "--series", "3"
    )
    assert "contains no CT series 3 of this study; it has: " in line and "9: bone, 8 inst" in line
    line = refusal(capsys, "fetch", config, "--study", f"{ROOT}.9", "--out", tmp_path / "d")
    assert f"contains no study {ROOT}.9" in line


def test_what_cannot_be_right_to_send_is_not_sent(
    run_once: Path,
    archive: Orthanc,
    studies: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Peer([*(studies[JAPANESE] / "ct").glob("*.dcm")]) as peer:
        for dataset in peer.held:
            dataset.PatientID = "P-2"
        line = refusal(capsys, "send", peer.config(tmp_path), run_once)
        assert "names another patient for this study" in line and "nothing was sent" in line
        peer.held.clear()
        line = refusal(capsys, "send", peer.config(tmp_path), run_once)
        assert f"contains no study {JAPANESE}" in line
        assert peer.stored == []


def test_an_object_whose_confirmation_was_lost_counts_as_stored(
    studies: dict[str, Path], tmp_path: Path
) -> None:
    """The archive has it, and refuses it as a duplicate: so it would for ever."""
    files = sorted((studies[JAPANESE] / "ct").glob("*.dcm"))
    with Peer(files[:2]) as peer:
        peer.refuses = 0x0111
        read = read_config(peer.config(tmp_path))
        archive = open_archive(read)
        archive.store(pydicom.dcmread(files[0]))
        with pytest.raises(ArchiveError, match="0x0111"):
            archive.store(pydicom.dcmread(files[2]))
        archive.stop()
    there = pydicom.dcmread(files[0])
    listed = [{"00080018": {"vr": "UI", "Value": [str(there.SOPInstanceUID)]}}]
    with Web(
        200, json.dumps(listed).encode(), post=409, Content_Type="application/dicom+json"
    ) as web:
        archive = open_archive(read_config(write_config(tmp_path, {"url": web.url})))
        archive.store(there)
        with pytest.raises(ArchiveError, match="409"):
            archive.store(pydicom.dcmread(files[2]))
        archive.stop()


def test_nothing_is_sent_twice_until_the_result_changes(
    run_once: Path, archive: Orthanc, capsys: pytest.CaptureFixture[str]
) -> None:
    before = archive.uids(JAPANESE)
    assert pacs("send", archive.config("web"), run_once) == 0
    assert "the archive contains lesions.dcm" in capsys.readouterr().out
    assert archive.uids(JAPANESE) == before
    # The other protocol is another way in: the same objects are stored by it, and confirmed.
    for one in archive.objects(JAPANESE)["SR"] + archive.objects(JAPANESE)["DOC"]:
        archive.delete(one.orthanc)
    assert pacs("send", archive.config("get"), run_once / "result") == 0
    assert archive.uids(JAPANESE) == before
    record = json.loads((run_once / "result" / "dicom" / "sent.json").read_text("utf-8"))
    assert len(record["sent"]) == 2 and PASSWORD not in str(record)
    assert pacs("send", archive.config("web"), run_once, "--unreviewed") == 0
    after = archive.uids(JAPANESE)
    assert len(after - before) == 3, "what is sent is made anew of what is asked for"


@pytest.mark.slow
def test_what_the_archive_has_deleted_is_stored_again(
    run_once: Path, archive: Orthanc, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of the objects, and then all: what is said of the archive is what it holds."""
    config = archive.config("web")
    assert pacs("send", config, run_once) == 0
    before, stored = archive.uids(JAPANESE), ": it was stored before"
    own = {"lesions.dcm": "SEG", "measurements.dcm": "SR", "report.dcm": "DOC"}
    made = {
        name: pydicom.dcmread(run_once / "result" / "dicom" / name).SOPInstanceUID for name in own
    }
    for deleted in (("measurements.dcm",), tuple(own), ()):
        for group in archive.objects(JAPANESE).values():
            for one in group:
                if one.SOPInstanceUID in {made[name] for name in deleted}:
                    archive.delete(one.orthanc)
        capsys.readouterr()
        assert pacs("send", config, run_once) == 0
        told = [x for x in capsys.readouterr().out.splitlines() if x.startswith("the archive")]
        assert told == [
            f"the archive contains {name}{'' if name in deleted else stored}" for name in own
        ]
        assert archive.uids(JAPANESE) == before


def other_copy(source: Path, folder: Path, **values: str) -> Path:
    """Write a series anew, of the same voxels, with other values or UIDs of its own."""
    folder.mkdir()
    for n, file in enumerate(sorted(source.iterdir())):
        own = {
            key: f"{value}.{n}" if key == "SOPInstanceUID" else value
            for key, value in values.items()
        }
        made = with_values(pydicom.dcmread(file), **own)
        made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
        made.save_as(folder / file.name)
    return folder


@pytest.mark.parametrize(
    "values",
    [
        {"PatientName": "Yamada^Jirou"},
        {"StudyInstanceUID": f"{ROOT}.701", "PatientID": "ANON-7"},
        {"SOPInstanceUID": f"{ROOT}.704"},
    ],
    ids=lambda values: " ".join(values),
)
@pytest.mark.slow
def test_objects_are_those_of_the_ct_that_was_given(
    run_once: Path, studies: dict[str, Path], tmp_path: Path, values: dict[str, str]
) -> None:
    """Of an anonymised copy, say: it has the same voxels, and no object goes to the other one."""
    result = tmp_path / "result"
    shutil.copytree(run_once / "result", result)
    original = studies[JAPANESE] / "ct"
    copied = other_copy(original, tmp_path / "copy", **values)
    uids = set()
    for ct in (original, copied, original):
        first = pydicom.dcmread(sorted(ct.iterdir())[0], stop_before_pixels=True)
        for file in make_objects(result, ct, str(first.SeriesInstanceUID)):
            made = pydicom.dcmread(file)
            for keyword in ("PatientID", "PatientName", "StudyInstanceUID"):
                assert made[keyword].value == first[keyword].value
            if file.name == "report.dcm":
                cited = {str(x.ReferencedSOPInstanceUID) for x in made.SourceInstanceSequence}
                assert cited == {str(pydicom.dcmread(x).SOPInstanceUID) for x in ct.iterdir()}
            uids.add(made.SOPInstanceUID)
    assert len(uids) == 3 * 3
    before = {x: x.stat().st_mtime_ns for x in (result / "dicom").iterdir()}
    make_objects(result, original, str(pydicom.dcmread(next(original.iterdir())).SeriesInstanceUID))
    assert {x: x.stat().st_mtime_ns for x in before} == before, "the same objects are made once"
    with pytest.raises(InputError, match="no-such-folder: does not exist"):
        make_objects(result, tmp_path / "no-such-folder")


def said_of_lesions(result: Path) -> str:
    """Return what the reports of a result say was outlined; both are of the same run."""
    page = (result / "report.html").read_text("utf-8")
    times = [(result / name).stat().st_mtime for name in ("report.html", "report.pdf")]
    assert abs(times[0] - times[1]) < 20
    (said,) = re.findall(r"No lesion outlined|\d+ lesions? \(", page)[:1]
    return str(said)


@pytest.mark.slow
def test_a_report_is_that_of_the_result_beside_it(
    archive: Orthanc,
    tiny_weights: Path,
    calm_weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """After another run, sent or not, after one that was stopped, and after a review."""
    out, config = tmp_path / "study", archive.config("web")
    result = out / "result"
    words = ("--study", JAPANESE, "--out", out, "--weights", tiny_weights, "--levels", "T12")
    assert pacs("run", config, *words) == 0
    assert said_of_lesions(result) != "No lesion outlined"
    assert pacs("run", config, *words, "--weights", calm_weights, "--send") == 0
    told = capsys.readouterr().out
    assert f"wrote {result / 'report.html'}" in told and f"wrote {result / 'report.pdf'}" in told
    assert said_of_lesions(result) == "No lesion outlined"
    assert pacs("run", config, *words) == 0
    outlined = said_of_lesions(result)

    found = read_findings(result)
    assert found.grid is not None
    review = found.review(None)
    for item in review.items:
        review.judge(item.id, "rejected")
    export_accepted(result, review, {}, found.grid, found.run, "R. Ader", datetime(2026, 3, 4))
    assert pacs("send", config, out) == 0
    assert said_of_lesions(result) == "No lesion outlined"
    assert "Reviewed by R. Ader" in (result / "report.html").read_text("utf-8")
    assert pacs("send", config, out, "--unreviewed") == 0
    assert said_of_lesions(result) == outlined

    # A run of all levels has findings that the review does not know.
    assert pacs("run", config, *words[:-2]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert "contains a review of another run" in line and "or take --unreviewed" in line
    assert not (result / "report.html").exists() and not (result / "report.pdf").exists()
    capsys.readouterr()
    assert pacs("run", config, *words[:-2], "--unreviewed") == 0
    assert (result / "report.html").exists()

    began = time.time_ns()

    @contextmanager
    def stop_after_one() -> Iterator[Callable[[], bool]]:
        files = result / "vertebrae"
        yield lambda: any(file.stat().st_mtime_ns > began for file in files.glob("*.npz"))

    with pytest.MonkeyPatch.context() as changed:
        changed.setattr("hideseekseg.cli.console.stop_on_signal", stop_after_one)
        assert pacs("run", config, *words[:-2]) == 130
    assert not (result / "report.html").exists() and not (result / "report.pdf").exists()


@pytest.mark.slow
def test_a_study_that_has_grown_since_is_run_again(
    orthanc: Orthanc,
    box_spine: tuple[Volume, Volume],
    tiny_weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It was still being stored; the objects of the older result are not those of the new CT."""
    source, late = (
        write_study(tmp_path / "source", *box_spine, 6, PatientID="P6"),
        tmp_path / "late",
    )
    late.mkdir()
    for file in sorted((source / "ct").iterdir())[-4:]:
        file.rename(late / file.name)
    orthanc.upload(source)
    study, out, config = f"{ROOT}.61", tmp_path / "study", orthanc.config("web")
    words = ("--study", study, "--out", out, "--weights", tiny_weights, "--levels", "T12")
    assert pacs("run", config, *words) == 0
    first = (out / "result" / "report.html").read_bytes()
    orthanc.upload(late)
    line = refusal(capsys, "run", config, *words)
    assert "contains the result of another scan" in line
    assert line.endswith("choose another folder, or --overwrite")
    line = refusal(capsys, "send", config, out)
    assert "is another scan, not the one of the result" in line
    assert set(orthanc.objects(study)) == {"CT", "SEG"}, "objects of the older result were sent"
    assert pacs("run", config, *words, "--overwrite") == 0
    assert (out / "result" / "report.html").read_bytes() != first
    assert pacs("send", config, out) == 0
    (pdf,) = orthanc.objects(study)["DOC"]
    assert len(pdf.SourceInstanceSequence) == box_spine[0].array.shape[0]


def test_a_series_that_is_not_whole_or_not_the_one_asked_for_is_refused(
    studies: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [*studies[CYRILLIC].rglob("*.dcm")]
    words = ("--study", CYRILLIC, "--out")
    with Peer(files) as peer:
        config = peer.config(tmp_path)
        peer.says = 44
        line = refusal(capsys, "fetch", config, *words, tmp_path / "short")
        assert "has 44 instances, and lists 1: is it still being stored?" in line
        assert not list((tmp_path / "short").rglob("*.dcm"))
        peer.says = None

        peer.changed = lambda one: with_values(one, SeriesInstanceUID=f"{ROOT}.99")
        line = refusal(capsys, "fetch", config, *words, tmp_path / "foreign")
        assert f"sent an instance of another series ({ROOT}.99 instead of {ROOT}.24)" in line
        peer.changed = lambda one: with_values(one, StudyInstanceUID=f"{ROOT}.98")
        line = refusal(capsys, "fetch", config, *words, tmp_path / "foreign")
        assert f"sent an instance of another study ({ROOT}.98 instead of {CYRILLIC})" in line
        peer.changed = lambda one: with_values(one, SOPInstanceUID=f"{ROOT}.97")
        line = refusal(capsys, "fetch", config, *words, tmp_path / "foreign")
        assert f"sent an instance that was not asked for ({ROOT}.97)" in line
        assert not list((tmp_path / "foreign").rglob("*.dcm"))

        # The segmentation alone names another patient, as after a mix-up.
        peer.changed = lambda one: (
            with_values(one, PatientID="P-3") if one.Modality == "SEG" else one
        )
        line = refusal(capsys, "fetch", config, *words, tmp_path / "mixed")
        assert "segmentation: names another patient than the CT series does" in line

        peer.changed = lambda one: one
        peer.held = [x for x in peer.held if x.Modality == "CT"]
        line = refusal(capsys, "fetch", config, *words, tmp_path / "alone")
        assert "contains no segmentation (SEG, RTSTRUCT) of this study" in line


def with_values(dataset: Any, **values: str) -> Any:
    changed = copy.deepcopy(dataset)
    for keyword, value in values.items():
        setattr(changed, keyword, value)
    return changed


def command(*words: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY)}
    pipe = subprocess.PIPE
    line = [sys.executable, "-m", "hideseekseg", *map(str, words)]
    return subprocess.Popen(line, env=environment, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to one process alone")
def test_a_stop_keeps_what_is_whole_and_the_same_command_goes_on(
    studies: dict[str, Path], tmp_path: Path
) -> None:
    """Though the archive has fallen silent; and one that never answers holds nobody up."""
    files = [*studies[CYRILLIC].rglob("*.dcm")]
    out = tmp_path / "out"
    with Peer(files) as peer, closing(socket.socket()) as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        url = f"http://127.0.0.1:{mute.getsockname()[1]}/dicom-web"
        refused = command(
            "pacs",
            "find",
            *("--patient", "1", "--archive"),
            write_config(tmp_path, {"url": f"http://127.0.0.1:{free_port()}"}),
        )
        web = command(
            "pacs", "find", "--patient", "1", "--archive", write_config(tmp_path, {"url": url})
        )
        peer.after = 3
        config = peer.config(tmp_path)
        words = ("--study", CYRILLIC, "--out", out)
        running = command("pacs", "fetch", "--archive", config, *words)
        until(lambda: len(list(out.glob("ct/*.dcm"))) == 3)
        mute.accept()[0].recv(1000)
        time.sleep(0.3)  # it waits for the fourth
        for one in (running, web):
            began = time.monotonic()
            one.send_signal(signal.SIGINT)
            _, err = one.communicate(timeout=20)
            assert time.monotonic() - began < 2 and one.returncode == 130
            assert "stopped: what is complete is kept" in err and "Traceback" not in err
        _, err = refused.communicate(timeout=20)
        assert refused.returncode == 2 and len(err.splitlines()) == 1, "a library printed as well"
        assert len(list((out / "ct").iterdir())) == 3, "a part of a file was left"
        whole = sorted((out / "ct").iterdir())[0]
        whole.write_bytes(whole.read_bytes()[:100])  # as a failing disk may leave it
        peer.after, peer.asked = 10**6, []
        assert pacs("fetch", config, *words) == 0
        assert [len(asked) for asked in peer.asked] == [6], "what was there was fetched again"
    assert same_files(out / "ct", studies[CYRILLIC] / "ct")


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_host_that_nobody_knows_is_looked_up_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    look_up = socket.getaddrinfo

    def counted(host: Any, *values: Any, **options: Any) -> Any:
        asked.append(host)
        return look_up(host, *values, **options)

    monkeypatch.setattr(socket, "getaddrinfo", counted)
    config = write_config(tmp_path, {"url": "https://archive.invalid/dicom-web"})
    assert "unknown host name" in refusal(capsys, "find", config, "--patient", "P-1")
    assert asked == ["archive.invalid"]


def test_what_goes_wrong_is_one_line_with_its_cause(
    archive: Orthanc, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    def told(config: Path) -> str:
        return refusal(capsys, "find", config, "--patient", "P-1")

    nobody = free_port()
    assert "refuses the connection" in told(
        write_config(tmp_path, {"url": f"http://127.0.0.1:{nobody}"})
    )
    dimse = {"host": "127.0.0.1", "port": nobody, "ae_title": "X"}
    assert f"X@127.0.0.1:{nobody}: refuses the connection" in told(
        write_config(tmp_path, dimse, "dimse")
    )
    assert "unknown host name" in told(
        write_config(tmp_path, {"url": "https://archive.invalid/dicom-web"})
    )
    assert "unknown host name" in told(
        write_config(tmp_path, {**dimse, "host": "archive.invalid"}, "dimse")
    )
    monkeypatch.setenv("ARCHIVE_SECRET", "SESAME")
    wrong = archive.config("web", password={"env": "ARCHIVE_SECRET"})
    assert "does not accept the token or password (401)" in told(wrong)
    elsewhere = archive.config("web", url=f"http://127.0.0.1:{archive.http}/nowhere")
    assert "has no such object (404)" in told(elsewhere)
    assert "called ae title not recognised (ae_title WRONG)" in told(
        archive.config("get", ae_title="WRONG")
    )
    stranger = archive.config("get", own_ae_title="STRANGER")
    assert "does it know our AE title STRANGER?" in told(stranger)
    plain = archive.config("get", port=archive.http)
    assert "takes the connection, but no association" in told(plain)
    with Web(200, b"<html>", Content_Type="text/html") as page:
        assert "does not answer as DICOMweb does" in told(write_config(tmp_path, {"url": page.url}))
    with Web(200) as other, Web(302, b"", Location=other.url) as first:
        secured = {"url": first.url, "token": {"env": "ARCHIVE_SECRET"}}
        line = told(write_config(tmp_path, secured))
        assert f"leads to another address (http://127.0.0.1:{other.port})" in line
        assert first.seen[0][1] == "Bearer SESAME" and other.seen == []
    monkeypatch.setattr("hideseekseg.pacs.archive.RETRY_SECONDS", 0.01)
    with Web(503, b"busy") as busy:
        assert "answers 503" in told(write_config(tmp_path, {"url": busy.url}))
        assert len(busy.seen) == 3


def test_secrets_and_addresses_are_checked_before_anything_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    def told(data: dict[str, Any]) -> str:
        file = tmp_path / "archive.json"
        file.write_text(json.dumps(data), "utf-8")
        return refusal(capsys, "find", file, "--patient", "1")

    url = "https://archive.invalid/dicom-web"
    assert "needs either 'dicomweb' or 'dimse'" in told({})
    for name in ("token", "password"):
        assert f"{name} must not stand in this file" in told(
            {"dicomweb": {"url": url, name: "SESAME"}}
        )
        line = told({"dicomweb": {"url": url, name: {"value": "SESAME"}}})
        assert f"{name} must not stand in this file" in line
    assert "unknown key" in told({"dicomweb": {"tokne": "SESAME", "url": url}})
    assert "SESAME" not in told({"dicomweb": {"url": "https://a:SESAME@archive.invalid"}})
    monkeypatch.delenv("NO_SUCH", raising=False)
    assert "variable NO_SUCH: not set" in told(
        {"dicomweb": {"url": url, "token": {"env": "NO_SUCH"}}}
    )
    (tmp_path / "open").write_text("SESAME", "utf-8")
    (tmp_path / "open").chmod(0o644)
    if os.name != "nt":
        line = told({"dicomweb": {"url": url, "token": {"file": "open"}}})
        assert "open: can be read by others (mode 644): chmod 600 it" in line
    assert "unencrypted to another machine" in told({"dicomweb": {"url": "http://archive.invalid"}})
    assert "user and password belong together" in told({"dicomweb": {"url": url, "user": "me"}})
    assert "dimse has no token" in told({"dimse": {"token": "SESAME"}})
    assert "ae_title is not an AE title" in told(
        {"dimse": {"host": "a", "port": 104, "ae_title": "MORE THAN 16 LETTERS"}}
    )
    assert "port 0 is not between 1 and 65535" in told(
        {"dimse": {"host": "a", "port": 0, "ae_title": "A"}}
    )
    assert "listen_port" in told(
        {"dimse": {"host": "a", "port": 104, "ae_title": "A", "retrieve": "move"}}
    )
    with pytest.raises(SystemExit):
        pacs("fetch", tmp_path / "archive.json", "--study", "../x", "--out", tmp_path)


def test_tls_trusts_the_configured_authority_alone(
    studies: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = shutil.which("openssl")
    if not program:
        pytest.skip("openssl is not installed")
    words = [
        program,
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=x",
    ]
    words += ["-addext", "subjectAltName=IP:127.0.0.1"]
    words += ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "ca.pem")]
    subprocess.run(words, check=True, capture_output=True)
    own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    own.load_cert_chain(tmp_path / "ca.pem", tmp_path / "key.pem")
    with Web(200, tls=own) as web, Peer([*(studies[NOBODY] / "ct").glob("*.dcm")], own) as peer:
        trusted = {"tls": {"ca": "ca.pem"}}
        assert (
            pacs("find", write_config(tmp_path, {"url": web.url, **trusted}), "--patient", "1") == 0
        )
        line = refusal(capsys, "find", write_config(tmp_path, {"url": web.url}), "--patient", "1")
        assert "its certificate is not trusted: self" in line and "tls.ca" in line
        assert pacs("find", peer.config(tmp_path, **trusted), "--study", NOBODY) == 0
        assert "8 instances" in capsys.readouterr().out
        line = refusal(capsys, "find", peer.config(tmp_path, tls={}), "--patient", "1")
        assert "its certificate is not trusted: self" in line
        line = refusal(capsys, "find", peer.config(tmp_path), "--patient", "1")
        assert "no association" in line
