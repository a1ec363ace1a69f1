"""The server of one session: it starts, tells its address, and leaves nothing behind.

Only who opened that address, with its ticket, may talk to it.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import socket
import sys
import webbrowser
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.cookies import CookieError
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from trame_server import Server

from ..errors import InputError
from ..files import temporary_folder
from ..plain_data import as_type
from ..ui.child_process import AsyncioProcess
from .page import RunSettings, start_page
from .session import Session, Start
from .slicer_scene import divert_vtk, open_scene
from .uploads import Uploads

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
REFUSED = "This address needs the token that HideSeekSeg printed when it started.\n"
# The page runs what this server gives it and asks nobody else.  Vue compiles the page's template,
# which needs "unsafe-eval".
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-eval' 'unsafe-inline';"
    " style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; object-src 'none';"
    " base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class Authentication:
    """``hosts`` are the names that a request may call this server by; empty: any.

    ``tickets`` let in once, each: other users of a computer see what a browser is started with.
    """

    token: str
    hosts: frozenset[str]
    tickets: set[str] = field(default_factory=set)

    def middleware(self) -> Any:
        """For an aiohttp application: every request passes here, web sockets and files as well."""

        @web.middleware
        async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                right = self._called_rightly(request) and self._same_origin(request)
                given = request.query.get("token", "") if right else ""
                known = right and self._is_token(request.cookies.get(self._cookie(request), ""))
            except (CookieError, UnicodeError, ValueError):  # of odd hosts, cookies and addresses
                return web.Response(status=400, text=REFUSED)
            if right and self._lets_in(given):
                return self._enter(request)
            if not known:
                return web.Response(status=403, text=REFUSED)
            response = await handler(request)
            if not response.prepared:
                response.headers.update(HEADERS)
            return response

        return guarded

    def _enter(self, request: web.Request) -> web.Response:
        """From the address with the token to the page; the token does not stay in the address."""
        response = web.Response(status=303, headers={**HEADERS, "Location": "/index.html"})
        response.set_cookie(
            self._cookie(request), self.token, httponly=True, samesite="Strict", path="/"
        )
        return response

    def _lets_in(self, given: str) -> bool:
        if given in self.tickets:
            self.tickets.discard(given)
            return True
        return bool(given) and self._is_token(given)

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(errors="replace"), self.token.encode())

    def _cookie(self, request: web.Request) -> str:
        """Cookies know no ports, so that the name has to."""
        return f"hideseekseg-{request.url.port}"

    def _called_rightly(self, request: web.Request) -> bool:
        """Check the host name: a foreign name made to point here is refused."""
        return not self.hosts or (request.url.host or "") in self.hosts

    def _same_origin(self, request: web.Request) -> bool:
        origin = request.headers.get("Origin")
        return origin is None or origin == f"{request.scheme}://{request.host}"


PATIENCE_SECONDS = 30.0
WARNING = (
    "Warning: --host {host} lets other computers reach this server. Anyone who has the address with"
    " its token sees the patient's images; nothing is encrypted on the way."
)


@dataclass(frozen=True)
class Address:
    """``port`` 0 takes a free one; ``token`` is what a request needs to be answered."""

    host: str = "127.0.0.1"
    port: int = 0
    token: str = ""

    @property
    def open_to_others(self) -> bool:
        return self.host not in LOOPBACK

    def url(self, port: int) -> str:
        """Return the address that a browser opens: one that others reach where they may."""
        host = _own_address() if self.host in ("0.0.0.0", "::") else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/?token={self.token}"


def _own_address() -> str:
    """Return this computer's address in its network; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect(("192.0.2.1", 9))  # reserved for documentation: nobody has it
            return str(asked.getsockname()[0])
        except OSError:
            return socket.gethostname()


def serve(
    start: Start,
    settings: RunSettings,
    address: Address,
    upload_mb: int,
    open_browser: bool,
    say: Callable[[str], None],
) -> None:
    """Serve until the process is stopped; all private files are removed then.

    Raises InputError where the address cannot be used.
    """
    with temporary_folder(purpose="app") as folder:
        (folder / "uploads").mkdir()
        (folder / "scenes").mkdir()
        divert_vtk(folder / "vtk.log")
        scene = open_scene(folder / "scenes")
        server = Server(name="hideseekseg")
        server.client_type = "vue3"
        uploads = Uploads(folder / "uploads", upload_mb * 2**20)
        session = Session(server, scene.slicer_app, start, settings, uploads)
        address = Address(address.host, address.port, address.token or secrets.token_urlsafe(24))
        hosts = frozenset() if address.open_to_others else LOOPBACK
        authentication = Authentication(address.token, hosts)
        _bind(server, session, uploads, authentication)
        _tell(server, session, address, authentication if open_browser else None, say)
        sys.argv = sys.argv[:1]  # trame reads options from there
        try:
            server.start(
                port=address.port,
                host=address.host,
                open_browser=False,
                show_connection_info=False,
                disable_logging=True,
                timeout=0,
            )
        except OSError as error:
            cause = f"cannot be used: {error.strerror}"
            raise InputError(f"{address.host}:{address.port}", cause) from error
        finally:
            session.close()


def _bind(server: Any, session: Session, uploads: Uploads, authentication: Authentication) -> None:
    """Add the authentication and the session's own addresses."""

    async def page(_: web.Request) -> web.StreamResponse:
        return web.Response(text=start_page(), content_type="text/html")

    async def saved(request: web.Request) -> web.StreamResponse:
        path = session.downloads.files.get(request.match_info["name"])
        if path is None or not path.is_file():
            return web.Response(status=404)
        disposition = f'attachment; filename="{path.name}"'
        return web.FileResponse(path, headers={"Content-Disposition": disposition})

    async def comment(request: web.Request) -> web.StreamResponse:
        """Take what was typed in a page that goes; see `Comments.take`."""
        try:
            words = as_type(tuple[str, str, int, str], await request.json())
        except (ValueError, RecursionError):
            return web.Response(status=400)
        with server.state:
            await session.do("comment", *words)
        return web.Response(status=204)

    def bind(running: Any) -> None:
        app = running.app
        app.middlewares.append(authentication.middleware())
        app.router.add_post("/paraview/", _session_address)
        app.router.add_get("/index.html", page)
        app.router.add_get("/saved/{name}", saved)
        app.router.add_post("/comment", comment)
        app.router.add_put("/upload/{role}/{name}", uploads.receive)
        server.controller.on_server_ready.add(lambda **_: _close_slow_connections(running))
        _hear_out(running)
        logging.getLogger("aiohttp.server").addFilter(_is_ours)

    server.controller.on_server_bind.add(bind)
    server.controller.on_server_exited.add(lambda **_: AsyncioProcess.dismiss())


def _is_ours(record: logging.LogRecord) -> bool:
    """Return whether an error is of this server: what is not HTTP is refused, not printed."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)


def _close_slow_connections(running: Any) -> None:
    """Close connections that do not ask for anything whole within ``PATIENCE_SECONDS``.

    aiohttp counts an hour for these, and trame's server has no setting for it.
    """
    settings = getattr(getattr(running.runner, "server", None), "_kwargs", None)
    if isinstance(settings, dict):
        settings["keepalive_timeout"] = PATIENCE_SECONDS


def _hear_out(running: Any) -> None:
    """Carry out all that a page had sent before it was closed.

    wslink stops to listen at the first answer that cannot be given any more, and what was sent
    after that question would be lost with it: a verdict, or the words of a comment.
    """

    def heard(take: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        async def take_all(*message: Any) -> None:
            with suppress(ConnectionResetError):
                await take(*message)

        return take_all

    for pages in getattr(running, "_ws_handlers", ()):
        pages.onMessage = heard(pages.onMessage)


async def _session_address(request: web.Request) -> web.Response:
    """Answer what the page asks a launcher for: the server is running already."""
    return web.json_response({"sessionURL": f"ws://{request.host}/ws"})


def _tell(
    server: Any,
    session: Session,
    address: Address,
    browser: Authentication | None,
    say: Callable[[str], None],
) -> None:
    """Say where the server is, once it runs; ``browser`` lets the browser in that is opened."""

    def ready(**_: Any) -> None:
        url = address.url(server.port)
        if address.open_to_others:
            say(WARNING.format(host=address.host))
        say(f"HideSeekSeg is at {url}")
        say("Ctrl-C ends it.")
        if browser is not None:
            ticket = secrets.token_urlsafe(24)
            browser.tickets.add(ticket)
            webbrowser.open(Address(address.host, address.port, ticket).url(server.port))
        session.task = asyncio.get_running_loop().create_task(session.begin())

    server.controller.on_server_ready.add(ready)
