"""What the client raises when the gateway refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gateway.core.received_json import parse_json

if TYPE_CHECKING:
    import httpx

UNEXPECTED: Final = "unexpected_answer"
"""The code of an answer that is not one of a gateway."""


class ApiError(Exception):
    """The gateway refused a request, or what answered is no gateway.

    ``code`` is for programs, such as ``reset_pending``, the message says what to do.
    """

    def __init__(self, status: int, code: str, message: str, details: dict[str, Any], headers: httpx.Headers) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details
        self.request_id = headers.get("X-Request-Id")
        seconds = headers.get("Retry-After", "")
        self.retry_after = int(seconds) if seconds.isdecimal() else None
        """Seconds to wait before the same request is sent again; None where waiting does not help."""


class IncompleteExportError(Exception):
    """An export ended without its last line, ``end``: what came is not everything that is kept about the person."""


def document(response: httpx.Response) -> dict[str, Any]:
    """Return the JSON object that was answered.

    Raises:
        ApiError: ``unexpected_answer``: the answer is no JSON object.
    """
    try:
        found = parse_json(response.content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise unexpected(response)
    return found


def refusal(response: httpx.Response) -> ApiError:
    """Return the error that an answer tells of."""
    said = document(response).get("error")
    if not isinstance(said, dict) or "message" not in said:
        return unexpected(response)
    details = said.get("details") or {}
    return ApiError(response.status_code, str(said.get("code")), str(said["message"]), details, response.headers)


def unexpected(response: httpx.Response) -> ApiError:
    """Return the error for an answer that no gateway gives."""
    message = f"What answers at {response.url} is no gateway. Check the URL."
    return ApiError(response.status_code, UNEXPECTED, message, {}, response.headers)
