"""An archive that speaks DIMSE (C-FIND, C-GET or C-MOVE, C-STORE), by pynetdicom."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ..errors import ArchiveError
from ..progress import Stopped
from . import archive
from .archive import (
    CONNECT_SECONDS,
    TRIES,
    UNKNOWN_HOST,
    ArchivedSeries,
    ArchivedStudy,
    DimseConfig,
    missing_library,
    tls_context,
    why_not_connected,
)
from .dicomweb import SERIES_FIELDS, STUDY_FIELDS, series_of, study_of

FIND = "1.2.840.10008.5.1.4.1.2.2.1"  # all of the study root model
MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
GET = "1.2.840.10008.5.1.4.1.2.2.3"
# What is fetched: CT, enhanced CT, the enhanced CT of a converter, SEG of both kinds, RTSTRUCT.
FETCHED = (
    *("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"),
    *("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"),
    "1.2.840.10008.5.1.4.1.1.481.3",
)
# Each in a context of its own, so that the archive sends what it holds as it holds it: explicit and
# implicit little endian, deflated, RLE, JPEG (lossy, lossless), JPEG-LS and JPEG 2000.
SYNTAXES = (
    *("1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5"),
    *("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57"),
    *("1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"),
    *("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"),
)
BATCH = 100  # instances that one request names
DUPLICATE = 0x0111  # the status "duplicate SOP instance"
NOT_ASKED_FOR = 0xA900  # the status "data set does not match SOP class", for what is refused
STATUSES = {
    0x0122: "does not know this kind of object (0x0122)",
    0x0124: "does not allow this to our AE title (0x0124)",
    0xA701: "has too few resources (0xA701)",
    0xA702: "has too few resources (0xA702)",
    0xA801: "does not know our AE title as a place to send to (0xA801)",
}


class DimseArchive:
    """An ``Archive``; ``timeout`` is the seconds to wait for an answer.

    Each method opens an association of its own and releases it at its end.
    """

    def __init__(self, config: DimseConfig, timeout: float) -> None:
        try:
            import pynetdicom
        except ImportError as error:
            raise missing_library("pynetdicom", error) from error
        self.address = f"{config.ae_title}@{config.host}:{config.port}"
        self._config, self._timeout = config, timeout
        self._net: Any = pynetdicom
        self._stopped = threading.Event()
        self._open: list[Any] = []

    def studies(self, query: Mapping[str, str]) -> list[ArchivedStudy]:
        """Return the studies that match, as the protocol says."""
        wanted = ("StudyInstanceUID", "StudyDate", "PatientName", *STUDY_FIELDS)
        return [study_of(one) for one in self._find("STUDY", query, wanted)]

    def series(self, study: str) -> list[ArchivedSeries]:
        """Return the series of a study, as the protocol says."""
        wanted = ("SeriesInstanceUID", "Modality", *SERIES_FIELDS)
        return [series_of(one) for one in self._find("SERIES", {"StudyInstanceUID": study}, wanted)]

    def instances(self, study: str, series: str) -> list[str]:
        """Return the instances of a series, as the protocol says."""
        query = {"StudyInstanceUID": study, "SeriesInstanceUID": series}
        found = self._find("IMAGE", query, ("SOPInstanceUID",))
        return [str(one.get("SOPInstanceUID", "")) for one in found]

    def retrieve(
        self, study: str, series: str, uids: Sequence[str], keep: Callable[[bytes], None]
    ) -> None:
        """Hand each instance to ``keep`` in the transfer syntax that the archive holds it in."""
        for start in range(0, len(uids), BATCH):
            query = self._query("IMAGE", {"StudyInstanceUID": study, "SeriesInstanceUID": series})
            query.SOPInstanceUID = list(uids[start : start + BATCH])
            if self._config.retrieve == "move":
                self._move(query, keep)
            else:
                self._get(query, keep)

    def store(self, dataset: Any) -> None:
        """Store an object, as the protocol says."""
        syntax = str(dataset.file_meta.TransferSyntaxUID)
        context = self._net.build_context(str(dataset.SOPClassUID), [syntax])
        with self._association([context]) as association:
            status = association.send_c_store(dataset)
        # A warning says that the object was stored, with something amended.
        code = status.get("Status")
        if code is None:
            raise ArchiveError(self.address, "cut the association before it confirmed the storage")
        uid = str(dataset.SOPInstanceUID)
        if code == DUPLICATE:  # stored before, and its confirmation was lost
            series = str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID)
            if uid in self.instances(*series):
                return
        if code and code >> 12 != 0xB:
            raise self._refusal(code, f"refused to store {uid}")

    def stop(self) -> None:
        """Abort what is under way."""
        self._stopped.set()
        for association in list(self._open):
            association.abort()

    def _query(self, level: str, query: Mapping[str, str], wanted: Sequence[str] = ()) -> Any:
        import pydicom

        made = pydicom.Dataset()
        made.QueryRetrieveLevel = level
        if not all(text.isascii() for text in query.values()):
            made.SpecificCharacterSet = "ISO_IR 192"
        for keyword in wanted:
            setattr(made, keyword, None)
        for keyword, text in query.items():
            setattr(made, keyword, text)
        return made

    def _find(self, level: str, query: Mapping[str, str], wanted: Sequence[str]) -> list[Any]:
        found: list[Any] = []
        with self._association([self._net.build_context(FIND)]) as association:
            answers = association.send_c_find(self._query(level, query, wanted), FIND)
            self._follow(answers, "C-FIND", found.append)
        return found

    def _get(self, query: Any, keep: Callable[[bytes], None]) -> None:
        contexts = [self._net.build_context(GET)]
        contexts += [self._net.build_context(kind, [s]) for kind in FETCHED for s in SYNTAXES]
        roles = [self._net.build_role(kind, scp_role=True) for kind in FETCHED]
        receiver = _Receiver(keep)
        handlers = [(self._net.evt.EVT_C_STORE, receiver)]
        try:
            with self._association(contexts, roles, handlers) as association:
                if not any(x.abstract_syntax == GET for x in association.accepted_contexts):
                    cause = 'does not offer C-GET: set "retrieve": "move", and listen_port'
                    raise ArchiveError(self.address, cause)
                self._follow(association.send_c_get(query, GET), "C-GET")
        finally:
            receiver.raise_what_was_wrong()

    def _move(self, query: Any, keep: Callable[[bytes], None]) -> None:
        config, receiver = self._config, _Receiver(keep)
        entity = self._net.AE(ae_title=config.own_ae_title)
        entity.require_called_aet = True
        for kind in FETCHED:
            entity.add_supported_context(kind, list(SYNTAXES))
        where = (config.listen_host, config.listen_port)
        handlers = [(self._net.evt.EVT_C_STORE, receiver)]
        secured = None if config.tls is None else self._own_tls()
        try:
            server = entity.start_server(
                where, block=False, evt_handlers=handlers, ssl_context=secured
            )
        except OSError as error:
            cause = f"cannot be listened at: {error.strerror or error}"
            raise ArchiveError(f"{where[0]}:{where[1]}", cause) from error
        try:
            with self._association([self._net.build_context(MOVE)]) as association:
                answers = association.send_c_move(query, config.own_ae_title, MOVE)
                self._follow(answers, "C-MOVE")
        finally:
            server.shutdown()
            receiver.raise_what_was_wrong()

    def _own_tls(self) -> Any:
        """Return the context in which the archive is let in: by a certificate of the authority."""
        import ssl

        tls = self._config.tls
        if tls is None or not tls.certificate or not tls.ca:
            raise ArchiveError(self.address, "C-MOVE by TLS needs tls.ca and tls.certificate")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tls.ca)
        context.load_cert_chain(tls.certificate, tls.key or None)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _follow(
        self, answers: Any, what: str, found: Callable[[Any], None] = lambda identifier: None
    ) -> None:
        """Read the answers to a request to the end; raise ArchiveError for a failure.

        Objects that could not be sent (a warning at the end) are missing, which the caller sees.
        """
        for status, identifier in answers:
            code = status.get("Status")
            if code is None:
                if self._stopped.is_set():
                    raise Stopped
                cause = f"cut the association in {what}, or took more than {self._timeout:g} s"
                hint = f"does it know our AE title {self._config.own_ae_title}?"
                raise ArchiveError(self.address, f"{cause}: {hint}")
            if code in (0xFF00, 0xFF01):
                found(identifier)
            elif code and code >> 12 != 0xB:
                raise self._refusal(code, f"failed in {what}")

    def _refusal(self, code: int, what: str) -> ArchiveError:
        return ArchiveError(self.address, STATUSES.get(code, f"{what} (status 0x{code:04X})"))

    @contextmanager
    def _association(
        self, contexts: Sequence[Any], roles: Sequence[Any] = (), handlers: Sequence[Any] = ()
    ) -> Iterator[Any]:
        """Yield an association; raises ArchiveError where none comes about."""
        association = self._associate(contexts, roles, handlers)
        self._open.append(association)
        try:
            yield association
            association.release()
        except ValueError as error:  # of pynetdicom, where no context was accepted
            raise ArchiveError(self.address, "does not know what was asked for") from error
        finally:
            self._open.remove(association)
            if association.is_established:
                association.abort()

    def _associate(
        self, contexts: Sequence[Any], roles: Sequence[Any], handlers: Sequence[Any]
    ) -> Any:
        config = self._config
        entity = self._net.AE(ae_title=config.own_ae_title)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = self._timeout
        entity.connection_timeout = min(CONNECT_SECONDS, self._timeout)
        tls = None if config.tls is None else (tls_context(config.tls), config.host)
        for attempt in range(1, TRIES + 1):
            host = self._host()
            association = entity.associate(
                *(host, config.port),
                contexts=list(contexts),
                ae_title=config.ae_title,
                ext_neg=list(roles),
                evt_handlers=list(handlers),
                tls_args=tls,
            )
            if association.is_established:
                return association
            if self._stopped.is_set():
                raise Stopped
            told, passing = self._why_not(association, host)
            if not passing or attempt == TRIES:
                raise told
            if self._stopped.wait(archive.RETRY_SECONDS * 2 ** (attempt - 1)):
                raise Stopped
        raise AssertionError("unreachable")

    def _host(self) -> str:
        """Return the address of the host: pynetdicom asks no name server."""
        try:
            found = socket.getaddrinfo(self._config.host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise ArchiveError(self.address, UNKNOWN_HOST) from error
        first = sorted(found, key=lambda x: x[0] != socket.AF_INET)[0]
        return str(first[4][0])

    def _why_not(self, association: Any, host: str) -> tuple[ArchiveError, bool]:
        """Return why there is no association, and whether another try may do better."""
        if association.is_rejected:
            answer = association.acceptor.primitive
            reason = str(answer.reason_str).lower()
            cause = f"rejects the association: {reason}"
            if "called ae" in reason:
                cause += f" (ae_title {self._config.ae_title})"
            elif "calling ae" in reason:
                cause += f" (own_ae_title {self._config.own_ae_title})"
            return ArchiveError(self.address, cause), answer.result == 2
        if association.rejected_contexts:
            return ArchiveError(self.address, "does not know what was asked for"), False
        # pynetdicom only logs what came in between: the connection is tried once more to tell it.
        try:
            wait = min(CONNECT_SECONDS, self._timeout)
            with socket.create_connection((host, self._config.port), timeout=wait) as plain:
                if self._config.tls is not None:
                    context = tls_context(self._config.tls)
                    context.wrap_socket(plain, server_hostname=self._config.host).close()
        except OSError as error:
            cause = why_not_connected(error)
            return ArchiveError(self.address, cause), cause.startswith("the connection")
        # On a busy machine pynetdicom may miss a rejection, as the archive hangs up behind it.
        cause = "takes the connection, but no association: does it speak DIMSE there, is TLS right?"
        return ArchiveError(self.address, cause), True


class _Receiver:
    """Hand what an archive sends to ``keep``; refuse what that refuses, and remember why."""

    def __init__(self, keep: Callable[[bytes], None]) -> None:
        self._keep = keep
        self._wrong: list[BaseException] = []

    def __call__(self, event: Any) -> int:
        if self._wrong:
            return NOT_ASKED_FOR
        try:
            self._keep(event.encoded_dataset())
        except Exception as error:  # raised where it is seen: pynetdicom would only log it
            self._wrong.append(error)
            return NOT_ASKED_FOR
        return 0

    def raise_what_was_wrong(self) -> None:
        if self._wrong:
            raise self._wrong[0]
