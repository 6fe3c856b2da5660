"""Pages for people, the fleet at ``/`` and the API to try at ``/docs``: static files from the package.

Nothing is loaded from elsewhere, and nothing is built: a browser gets the files in ``static`` as they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from pathlib import PurePath
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.http.certificate_page import STYLE_HASH
from gateway.http.errors import MethodNotAllowedError
from gateway.http.middleware import request_info

POLICY: Final = (
    f"default-src 'none'; script-src 'self'; style-src 'self' {STYLE_HASH}; connect-src 'self'; img-src data:; "
    "frame-src blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Content security policy: no inline script, nothing foreign, no framing, no text that becomes markup.

The page shows a certificate of reset in a frame that it fills itself (``blob:``), which inherits this policy. So the
style inside a certificate is allowed, by its hash.
"""
_FOLDER: Final = files("gateway.http") / "static"
_MEDIA_TYPES: Final = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_DOCS: Final = "/docs"
_APART: Final = {
    "/": "page/index.html",
    _DOCS: "docs.html",
    "/docs/docs.css": "docs.css",
    "/docs/docs.js": "docs.js",
}
FILES: Final[Mapping[str, str]] = _APART | {
    f"/page/{each.name}": f"page/{each.name}"
    for each in sorted((_FOLDER / "page").iterdir(), key=lambda each: each.name)
    if each.name.endswith((".css", ".js"))
}
"""The file of each path."""
_MODULES: Final = "/page/{file}"
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

    @cached_property
    def tag(self) -> str:
        """Return the ETag: it changes with the content, so that a browser fetches the file only when it has changed."""
        return f'"{hashlib.sha256(self.content).hexdigest()[:32]}"'

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the file."""
        request_info(scope).template = _MODULES if self.path.startswith("/page/") else self.path
        await self._answer(scope["method"], Headers(scope=scope))(scope, receive, send)

    def _answer(self, method: str, asked: Headers) -> Response:
        if method == "OPTIONS":
            return Response(status_code=204, headers={"Allow": _ALLOW})
        if method not in ("GET", "HEAD"):
            raise MethodNotAllowedError(_ALLOW)
        headers = {**_HEADERS, "ETag": self.tag}
        if self.tag in asked.get("If-None-Match", ""):
            return Response(status_code=304, headers=headers)
        return Response(self.content, headers=headers, media_type=self.media_type)


def pages(*, fleet: bool = True, docs: bool = True) -> list[Page]:
    """Return the files of the fleet's page and of the docs' page, as asked, read once per process."""
    return [_page(path) for path in FILES if (docs if path.startswith(_DOCS) else fleet)]


@cache
def _page(path: str) -> Page:
    name = FILES[path]
    return Page(path, _MEDIA_TYPES[PurePath(name).suffix], (_FOLDER / name).read_bytes())
