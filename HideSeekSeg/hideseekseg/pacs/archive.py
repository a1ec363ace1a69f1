"""Which archive is asked, by a configuration file, and what may be asked of any.

Nothing is asked of an archive that no configuration file names, and nothing is sent to another one.
Secrets stand in environment variables or in files of their own, never in the configuration, on the
command line or in a message.
"""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
import stat
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeVar
from urllib.parse import urlsplit

from ..errors import ArchiveError, InputError
from ..files import read_object, read_text
from ..plain_data import first_line, from_plain
from ..progress import Stopped

TRIES = 3  # of a request whose connection was cut, or whose archive is busy
RETRY_SECONDS = 1.0  # before the second, twice that before the third
CONNECT_SECONDS = 10.0
STOP_SECONDS = 0.1  # between two looks at whether a stop was requested
SECRETS = ("token", "password")
UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+")

T = TypeVar("T")


class _Between:
    """The numbers from ``low`` to ``high``, as ``as_type`` asks for them."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def __contains__(self, number: float) -> bool:
        return self.low <= number <= self.high

    def __str__(self) -> str:
        return f"between {self.low:g} and {self.high:g}"


Port = Annotated[int, _Between(1, 65535)]


@dataclass(frozen=True)
class TlsFiles:
    """PEM files: the authority to trust, if not the system's, and a certificate of our own."""

    ca: str = ""
    certificate: str = ""
    key: str = ""


@dataclass(frozen=True)
class DicomWebConfig:
    """An archive that speaks DICOMweb; ``token`` and ``password`` are the secrets themselves.

    ``unencrypted`` allows an ``http`` address of another machine.
    """

    url: str
    user: str = ""
    tls: TlsFiles = field(default_factory=TlsFiles)
    unencrypted: bool = False
    token: str = field(default="", repr=False)
    password: str = field(default="", repr=False)


@dataclass(frozen=True)
class DimseConfig:
    """An archive that speaks DIMSE; ``retrieve`` is how it sends.

    C-MOVE needs ``listen_port``, at which the archive finds ``own_ae_title``, and listens on the
    addresses of ``listen_host`` while a series is fetched.
    """

    host: str
    port: Port
    ae_title: str
    own_ae_title: str = "HIDESEEKSEG"
    retrieve: Literal["get", "move"] = "get"
    listen_host: str = ""
    listen_port: Annotated[int, _Between(0, 65535)] = 0
    tls: TlsFiles | None = None


@dataclass(frozen=True)
class ArchiveConfig:
    """One archive, by either protocol; ``timeout`` is the seconds to wait for an answer."""

    dicomweb: DicomWebConfig | None
    dimse: DimseConfig | None
    timeout: float = 30.0


@dataclass(frozen=True)
class ArchivedStudy:
    """A study that an archive holds, as far as it says so."""

    uid: str
    date: str = ""
    accession: str = ""
    description: str = ""
    modalities: tuple[str, ...] = ()
    patient_id: str = ""
    patient_name: str = ""


@dataclass(frozen=True)
class ArchivedSeries:
    """A series that an archive holds; ``instances`` is their number where it says so."""

    uid: str
    number: str = ""
    modality: str = ""
    description: str = ""
    instances: int | None = None

    def __str__(self) -> str:
        count = "" if self.instances is None else f", {self.instances} instances"
        return f"{self.number or '?'}: {self.description or 'no description'}{count} ({self.uid})"


class Archive(Protocol):
    """What may be asked of an archive; each method raises ArchiveError, and waits.

    ``address`` names it in messages.  After ``stop``, in another thread, a method that waits ends
    soon.
    """

    address: str

    def studies(self, query: Mapping[str, str]) -> list[ArchivedStudy]:
        """Return the studies whose attributes, by DICOM keyword, match."""

    def series(self, study: str) -> list[ArchivedSeries]:
        """Return the series of a study."""

    def instances(self, study: str, series: str) -> list[str]:
        """Return the UIDs of the instances of a series."""

    def retrieve(
        self, study: str, series: str, uids: Sequence[str], keep: Callable[[bytes], None]
    ) -> None:
        """Hand the content of each instance, a DICOM file, to ``keep``; what it raises ends it."""

    def store(self, dataset: Any) -> None:
        """Store an object; returns once the archive has confirmed that."""

    def stop(self) -> None:
        """Cut the connection."""


def read_config(path: Path) -> ArchiveConfig:
    """Return the archive that a JSON file describes; raises InputError, which shows no secret."""
    data = read_object(path)
    unknown = sorted(set(data) - {"dicomweb", "dimse", "timeout"})
    if unknown:
        raise InputError(path, f"has the unknown key {unknown[0]!r}")
    given = [name for name in ("dicomweb", "dimse") if name in data]
    if len(given) != 1:
        raise InputError(path, "names one archive: it needs either 'dicomweb' or 'dimse'")
    (name,) = given
    section = data[name]
    if not isinstance(section, dict):
        raise InputError(path, f"{name} is not an object")
    timeout = data.get("timeout", 30.0)
    if (
        isinstance(timeout, bool)
        or not isinstance(timeout, (int, float))
        or not 1 <= timeout < 3600
    ):
        raise InputError(path, "timeout is not a number of seconds between 1 and 3600")
    if name == "dimse":
        return ArchiveConfig(None, _dimse(path, section), float(timeout))
    return ArchiveConfig(_dicomweb(path, section), None, float(timeout))


def _dicomweb(path: Path, section: Mapping[str, Any]) -> DicomWebConfig:
    plain = {key: value for key, value in section.items() if key not in SECRETS}
    config = _parsed(path, "dicomweb", DicomWebConfig, plain)
    secrets: dict[str, Any] = {
        key: _secret(path, key, section[key]) for key in SECRETS if key in section
    }
    config = replace(config, tls=_files(path, config.tls), **secrets)
    address = urlsplit(config.url)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise InputError(path, "url is not an http or https address")
    if address.username or address.password or address.query:
        raise InputError(path, "url contains a user, a password or a query: give the address alone")
    if bool(config.user) != bool(config.password):
        raise InputError(path, "user and password belong together, and one is missing")
    if config.token and config.user:
        raise InputError(path, "has a token and a password: give one of them")
    if address.scheme == "http" and not (config.unencrypted or _is_this_machine(address.hostname)):
        cause = "sends patients' data unencrypted to another machine: use https, or accept that"
        raise InputError(path, f'url {cause} by "unencrypted": true')
    return config


def _dimse(path: Path, section: Mapping[str, Any]) -> DimseConfig:
    for key in SECRETS:
        if key in section:
            raise InputError(path, f"dimse has no {key}: DIMSE knows AE titles and TLS")
    config = _parsed(path, "dimse", DimseConfig, section)
    for name in ("ae_title", "own_ae_title"):
        title = getattr(config, name)
        if not re.fullmatch(r"[\x21-\x5b\x5d-\x7e][\x20-\x5b\x5d-\x7e]{0,15}", title):
            raise InputError(path, f"{name} is not an AE title: 1 to 16 letters of ASCII")
    if config.retrieve == "move" and not config.listen_port:
        cause = "the archive sends to a port of this machine: give listen_port, and the archive the"
        raise InputError(path, f"retrieve is move, and {cause} AE title {config.own_ae_title}")
    if config.tls is None:
        return config
    return replace(config, tls=_files(path, config.tls))


def _parsed(path: Path, name: str, kind: type[T], section: Mapping[str, Any]) -> T:
    try:
        return from_plain(kind, section, left_out=SECRETS if kind is DicomWebConfig else ())
    except ValueError as error:
        raise InputError(path, f"{name}: {first_line(error)}") from error


def _files(path: Path, tls: TlsFiles) -> TlsFiles:
    """Return the files with their folder, that of the configuration where they name none."""
    found = {}
    for name, file in vars(tls).items():
        found[name] = str(path.parent / file) if file else ""
        if file and not Path(found[name]).is_file():
            raise InputError(path, f"tls: {name} {file} is not a file")
    if tls.key and not tls.certificate:
        raise InputError(path, "tls: has a key and no certificate")
    return TlsFiles(**found)


def _secret(path: Path, name: str, said: Any) -> str:
    """Return the secret that a variable or a file holds; no message shows what stands there."""
    kinds = {"env", "file"}
    if not isinstance(said, dict) or len(said) != 1 or not set(said) <= kinds:
        where = f'"{name}": {{"env": "VARIABLE"}} or {{"file": "FILE"}}'
        raise InputError(path, f"{name} must not stand in this file: say where it stands, {where}")
    (kind, place), *_ = said.items()
    if not isinstance(place, str) or not place:
        raise InputError(path, f"{name} does not say which {kind}")
    if kind == "env":
        secret = os.environ.get(place, "")
        if not secret:
            raise InputError(path, f"{name} stands in the environment variable {place}: not set")
    else:
        file = path.parent / place
        secret = read_text(file, 1 << 16).strip()
        mode = stat.S_IMODE(file.stat().st_mode)
        if os.name != "nt" and mode & 0o077:
            raise InputError(file, f"can be read by others (mode {mode:o}): chmod 600 it")
    allowed = r"[\x21-\x7e]+" if name == "token" else r"[^\x00-\x1f\x7f]+"
    if not re.fullmatch(allowed, secret):
        raise InputError(path, f"{name}: what stands there is empty, or no {name}")
    return secret


def _is_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def tls_context(tls: TlsFiles) -> ssl.SSLContext:
    """Return a context that trusts the files' authority alone, else the system's.

    Raises ArchiveError for files that are none.
    """
    try:
        context = ssl.create_default_context(cafile=tls.ca or None)
        if tls.certificate:
            context.load_cert_chain(tls.certificate, tls.key or None)
    except (OSError, ValueError) as error:
        file = tls.certificate or tls.ca
        raise ArchiveError(file, f"cannot be used for TLS: {first_line(error)}") from error
    return context


def open_archive(config: ArchiveConfig) -> Archive:
    """Return the archive of a configuration; nothing is sent yet.

    Raises InputError where the library that speaks its protocol is not installed.
    """
    if config.dicomweb is not None:
        from .dicomweb import DicomWebArchive

        return DicomWebArchive(config.dicomweb, config.timeout)
    if config.dimse is None:
        raise ValueError("a configuration without an archive")
    from .dimse import DimseArchive

    return DimseArchive(config.dimse, config.timeout)


def missing_library(name: str, error: ImportError) -> InputError:
    """Return the error for a library of the extra ``pacs`` that is not installed."""
    cause = f"{name} is not installed, which speaks with archives: pip install hideseekseg[pacs]"
    return InputError("", cause if error.name else f"{name} cannot be used: {first_line(error)}")


def interruptible(
    call: Callable[[], T], should_stop: Callable[[], bool], stop: Callable[[], None]
) -> T:
    """Return what ``call`` returns, called in another thread; raise what it raises.

    Once ``should_stop()`` is true, ``stop`` is called and Stopped raised, whatever ``call`` waits
    for: an archive that does not answer holds nobody up.
    """
    future: futures.Future[T] = futures.Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    while not future.done():
        if should_stop():
            stop()
            raise Stopped
        futures.wait([future], timeout=STOP_SECONDS)
    return future.result()


UNKNOWN_HOST = "has an unknown host name"
REFUSED = "refuses the connection"
BAD_CERTIFICATE = "its certificate is not trusted"
NO_TLS = "cannot be reached by TLS"
# What ``why_not_connected`` may begin with where another try would end in the same way.
FINAL_CAUSES = (UNKNOWN_HOST, REFUSED, BAD_CERTIFICATE, NO_TLS)


def why_not_connected(error: BaseException) -> str:
    """Return, as words that follow an address, why no connection came about."""
    chain: list[BaseException] = []
    todo: list[Any] = [error]
    while todo:
        one = todo.pop(0)
        if not isinstance(one, BaseException) or one in chain:
            continue
        chain.append(one)
        inner = (getattr(one, "reason", None), one.__cause__, one.__context__, *one.args)
        todo += inner
    for one in chain:
        if isinstance(one, ssl.SSLCertVerificationError):
            cause = f"{BAD_CERTIFICATE}: {one.verify_message}"
            return f"{cause}; name the authority in the configuration's tls.ca"
        if isinstance(one, ConnectionRefusedError):
            return f"{REFUSED}: is the archive running, are host and port right?"
    for one in chain:
        if isinstance(one, ssl.SSLError):
            return f"{NO_TLS}: {one.reason or first_line(one)}"
        if type(one).__name__ in ("gaierror", "NameResolutionError"):
            return UNKNOWN_HOST
        if isinstance(one, TimeoutError) or "Timeout" in type(one).__name__:
            return "does not answer in time"
    said = next((x.strerror for x in chain if isinstance(x, OSError) and x.strerror), "")
    return f"the connection failed: {said or first_line(error)}"
