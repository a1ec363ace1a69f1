"""Who may talk to the server: whoever opened its address with the token, and nobody else."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http.cookies import CookieError
from typing import Any

from aiohttp import web

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
