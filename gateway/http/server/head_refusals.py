"""Refusals that the connection itself sends, for what never becomes a request of the application."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from gateway.models.errors import ErrorAnswer, ErrorBody

MAX_HEAD_BYTES: Final = 32_768


@dataclass(frozen=True)
class HeadRefusal:
    """One refusal; the connection is closed after it."""

    status: str
    message: str
    code: str = "invalid_request"

    def answer(self, headers: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
        """Return its bytes, with these headers too."""
        body = ErrorAnswer(error=ErrorBody(code=self.code, message=self.message, details={}))
        content = body.model_dump_json().encode()
        lines = [
            f"HTTP/1.1 {self.status}".encode(),
            b"content-type: application/json",
            b"content-length: %d" % len(content),
            b"cache-control: no-store",
            b"connection: close",
            *(b"%s: %s" % each for each in headers),
        ]
        return b"\r\n".join(lines) + b"\r\n\r\n" + content


def bad_head(message: str) -> HeadRefusal:
    """Return the refusal of a head for this reason."""
    return HeadRefusal("400 Bad Request", message)


FULL: Final = HeadRefusal(
    "503 Service Unavailable",
    "The gateway has as many connections as it takes, and all are at work. Send the request again in a moment.",
    "service_unavailable",
)
NOT_HTTP: Final = bad_head("This cannot be read as an HTTP/1.1 request. Check the client.")
FRAMING_TOO_LARGE: Final = bad_head(
    "Chunk sizes, chunk extensions and trailers outweigh the body. Send the body in larger chunks."
)
HEAD_TOO_LARGE: Final = HeadRefusal(
    "431 Request Header Fields Too Large",
    f"Path and headers are too large. Send at most {MAX_HEAD_BYTES} bytes of them.",
)
