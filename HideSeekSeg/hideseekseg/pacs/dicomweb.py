"""An archive that speaks DICOMweb (QIDO-RS, WADO-RS, STOW-RS), by dicomweb-client."""

from __future__ import annotations

import base64
import io
import logging
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ..errors import ArchiveError, UserError
from ..plain_data import first_line
from ..progress import Stopped
from . import archive
from .archive import (
    CONNECT_SECONDS,
    FINAL_CAUSES,
    TRIES,
    ArchivedSeries,
    ArchivedStudy,
    DicomWebConfig,
    missing_library,
    why_not_connected,
)

T = TypeVar("T")

STUDY_FIELDS = ("StudyDescription", "ModalitiesInStudy", "AccessionNumber", "PatientID")
SERIES_FIELDS = ("SeriesDescription", "SeriesNumber", "NumberOfSeriesRelatedInstances")
BUSY = (429, 500, 502, 503, 504)
REFUSALS = {
    401: "does not accept the token or password (401): is it there, is it still valid?",
    403: "does not allow this to the token or user (403)",
    404: "has no such object (404)",
    409: "refuses to store this (409)",
    413: "refuses to store this: it is too large (413)",
}


class DicomWebArchive:
    """An ``Archive``; ``timeout`` is the seconds to wait for an answer.

    No redirection is followed, no proxy and no password of the machine's own settings is used:
    nothing goes to another address than the configured one.
    """

    def __init__(self, config: DicomWebConfig, timeout: float) -> None:
        try:
            import requests
            from dicomweb_client.api import DICOMwebClient
        except ImportError as error:
            raise missing_library("dicomweb-client", error) from error
        for name in ("dicomweb_client", "retrying"):  # they would print what is raised as well
            logging.getLogger(name).addHandler(logging.NullHandler())
        self.address = config.url.rstrip("/")
        session: Any = requests.Session()
        session.trust_env = False
        session.max_redirects = 0
        session.verify = config.tls.ca or True
        if config.tls.certificate:
            key = config.tls.key
            session.cert = (config.tls.certificate, key) if key else config.tls.certificate
        session.auth = _Signed(_credentials(config))
        wait = (min(CONNECT_SECONDS, timeout), timeout)
        self._session, self._stopped = session, threading.Event()
        self._client = DICOMwebClient(self.address, session, timeout=wait)
        self._client.set_http_retry_params(retry=False)  # retried here, where a stop is seen

    def studies(self, query: Mapping[str, str]) -> list[ArchivedStudy]:
        """Return the studies that match, as the protocol says."""
        return [study_of(one) for one in self._search("studies", (), query, STUDY_FIELDS)]

    def series(self, study: str) -> list[ArchivedSeries]:
        """Return the series of a study, as the protocol says."""
        return [series_of(one) for one in self._search("series", (study,), {}, SERIES_FIELDS)]

    def instances(self, study: str, series: str) -> list[str]:
        """Return the instances of a series, as the protocol says."""
        found = self._search("instances", (study, series), {}, ())
        return [str(one.get("SOPInstanceUID", "")) for one in found]

    def retrieve(
        self, study: str, series: str, uids: Sequence[str], keep: Callable[[bytes], None]
    ) -> None:
        """Hand each instance to ``keep`` in the transfer syntax that the archive holds it in."""
        for uid in uids:
            keep(self._ask(partial(self._instance, study, series, uid)))

    def store(self, dataset: Any) -> None:
        """Store an object, as the protocol says."""
        try:
            answer = self._ask(lambda: self._client.store_instances([dataset]))
        except ArchiveError as error:
            if error.cause == REFUSALS[409] and self._holds(dataset):
                return
            raise
        uid = str(dataset.SOPInstanceUID)
        stored = [
            str(x.get("ReferencedSOPInstanceUID")) for x in answer.get("ReferencedSOPSequence", [])
        ]
        failed = answer.get("FailedSOPSequence")
        # An object that was stored before, whose confirmation was lost, is refused as a duplicate.
        if (uid in stored and not failed) or self._holds(dataset):
            return
        if failed:
            reason = failed[0].get("FailureReason")
            code = "no reason given" if reason is None else f"reason 0x{int(reason):04X}"
            raise ArchiveError(self.address, f"refused to store {uid}: {code}")
        raise ArchiveError(self.address, f"does not confirm that it stored {uid}")

    def _holds(self, dataset: Any) -> bool:
        there = self.instances(str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID))
        return str(dataset.SOPInstanceUID) in there

    def stop(self) -> None:
        """Let go of the connection, and try nothing again."""
        self._stopped.set()
        self._session.close()

    def _search(
        self, level: str, within: Sequence[str], query: Mapping[str, str], fields: Sequence[str]
    ) -> list[Any]:
        import pydicom

        search = getattr(self._client, f"search_for_{level}")
        options: dict[str, Any] = {"search_filters": dict(query)} if query else {}
        if fields:
            options["fields"] = list(fields)
        key = {"studies": "StudyInstanceUID", "series": "SeriesInstanceUID"}.get(
            level, "SOPInstanceUID"
        )
        found: dict[str, Any] = {}
        while True:  # archives answer in pages; some know no offset and send the first one again
            paged = {**options, "offset": len(found)} if found else options
            page = self._ask(partial(search, *within, **paged))
            try:
                datasets = [pydicom.Dataset.from_json(one) for one in page]
            except Exception as error:  # pydicom raises of all kinds for what is not DICOM JSON
                raise self._no_dicomweb(error) from error
            new = {text_of(one, key): one for one in datasets if text_of(one, key) not in found}
            if not new:
                return [*found.values()]
            found |= new

    def _instance(self, study: str, series: str, uid: str) -> bytes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of answers in one part, and values out of range
            found = self._client.retrieve_instance(study, series, uid)
            content = io.BytesIO()
            found.save_as(content, enforce_file_format=True)
        return content.getvalue()

    def _ask(self, call: Callable[[], T]) -> T:
        """Return the answer, after so many tries; what will not pass is not tried again."""
        for attempt in range(1, TRIES + 1):
            try:
                return call()
            except UserError:
                raise
            except Exception as error:  # of requests, of urllib3, of JSON and of pydicom
                if self._stopped.is_set():
                    raise Stopped from error
                told, passing = self._told(error)
                if not passing or attempt == TRIES:
                    raise told from error
            if self._stopped.wait(archive.RETRY_SECONDS * 2 ** (attempt - 1)):
                raise Stopped
        raise AssertionError("unreachable")

    def _told(self, error: Exception) -> tuple[ArchiveError, bool]:
        """Return the error in one line, and whether another try may do better."""
        import requests

        if isinstance(error, requests.HTTPError) and error.response is not None:
            code = error.response.status_code
            cause = REFUSALS.get(code, f"answers {code} {error.response.reason or ''}".strip())
            return ArchiveError(self.address, cause), code in BUSY
        if isinstance(error, requests.TooManyRedirects):
            there = urlsplit(error.response.headers.get("Location", "")) if error.response else None
            where = f" ({there.scheme}://{there.netloc})" if there and there.netloc else ""
            cause = f"leads to another address{where}, and nothing is sent to one not configured"
            return ArchiveError(self.address, cause), False
        if isinstance(error, (requests.ConnectionError, requests.Timeout)):
            cause = why_not_connected(error)
            return ArchiveError(self.address, cause), not cause.startswith(FINAL_CAUSES)
        if isinstance(error, OSError) and not isinstance(error, requests.RequestException):
            return ArchiveError(self.address, f"cannot be asked: {first_line(error)}"), False
        if isinstance(error, requests.exceptions.ChunkedEncodingError):
            return ArchiveError(self.address, "cut the connection within an answer"), True
        return self._no_dicomweb(error), False

    def _no_dicomweb(self, error: Exception) -> ArchiveError:
        cause = f"does not answer as DICOMweb does ({first_line(error)}): is the address right?"
        return ArchiveError(self.address, cause)


def _credentials(config: DicomWebConfig) -> str:
    """Return the value of the header ``Authorization``, empty for none."""
    if config.token:
        return f"Bearer {config.token}"
    if config.user:
        both = f"{config.user}:{config.password}".encode()
        return f"Basic {base64.b64encode(both).decode('ascii')}"
    return ""


class _Signed:
    """Sign a request, as requests asks for it.

    Blanks and wildcards are written as every archive reads them: dicomweb-client makes a plus of a
    blank, and Orthanc takes both this and an escaped asterisk for letters.
    """

    def __init__(self, credentials: str) -> None:
        self._credentials = credentials

    def __call__(self, request: Any) -> Any:
        if self._credentials:
            request.headers["Authorization"] = self._credentials
        path, mark, query = request.url.partition("?")
        request.url = path + mark + query.replace("%2A", "*").replace("+", "%20")
        return request


def study_of(found: Any) -> ArchivedStudy:
    """Return a study of an answer, a pydicom dataset; what it lacks stays empty."""
    modalities = found.get("ModalitiesInStudy") or ()
    return ArchivedStudy(
        text_of(found, "StudyInstanceUID"),
        text_of(found, "StudyDate"),
        text_of(found, "AccessionNumber"),
        text_of(found, "StudyDescription"),
        (modalities,) if isinstance(modalities, str) else tuple(map(str, modalities)),
        text_of(found, "PatientID"),
        text_of(found, "PatientName"),
    )


def series_of(found: Any) -> ArchivedSeries:
    """Return a series of an answer, a pydicom dataset; what it lacks stays empty."""
    count = text_of(found, "NumberOfSeriesRelatedInstances")
    return ArchivedSeries(
        text_of(found, "SeriesInstanceUID"),
        text_of(found, "SeriesNumber"),
        text_of(found, "Modality"),
        text_of(found, "SeriesDescription"),
        int(count) if count.isdecimal() else None,
    )


def text_of(found: Any, keyword: str) -> str:
    """Return an attribute of a pydicom dataset as text, empty where it has none."""
    value = found.get(keyword)
    return "" if value is None else str(value).strip(" \0")
