"""The page to try the API: three files of our own, served as they lie in the package. Nothing comes from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.errors import NotFoundError
from gateway.http.errors import MethodNotAllowedError
from gateway.http.middleware import facts_of

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content security policy: nothing inline, nothing from another host, in nobody's frame."""
FILES: Final[Mapping[str, tuple[str, str]]] = {
    "/docs": ("docs.html", "text/html"),
    "/docs/docs.css": ("docs.css", "text/css"),
    "/docs/docs.js": ("docs.js", "text/javascript"),
}
"""By path: the file, and its media type."""
_ALLOW: Final = "GET, HEAD, OPTIONS"
_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True)
class Page:
    """One file of the page; an ASGI application."""

    path: str
    media_type: str
    content: bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve it."""
        if scope["path"] != self.path:  # Starlette's pattern also matches with a newline at the end
            raise NotFoundError("There is nothing at this path. The page to try the API is /docs, to the letter.")
        facts_of(scope).template = self.path
        await self._answer(scope["method"])(scope, receive, send)

    def _answer(self, method: str) -> Response:
        if method == "OPTIONS":
            return Response(status_code=204, headers={"Allow": _ALLOW})
        if method not in ("GET", "HEAD"):
            raise MethodNotAllowedError(_ALLOW)
        return Response(self.content, headers=dict(_HEADERS), media_type=self.media_type)


def pages() -> list[Page]:
    """All there are, read once."""
    folder = files("gateway.http") / "static"
    return [Page(path, media_type, (folder / name).read_bytes()) for path, (name, media_type) in FILES.items()]
