"""Mapping of exceptions to responses, in this one place (contract, section 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response

from gateway.core.redaction import redact
from gateway.errors import ConflictError, GatewayError, TooSoonError
from gateway.models.errors import ErrorAnswer, ErrorBody

RETRY_SECONDS: Final = 5
SCAN_RETRY_SECONDS: Final = 1

STATUS: Final[Mapping[str, int]] = {
    "invalid_request": 400,
    "unauthorized": 401,
    "insufficient_scope": 403,
    "csrf_refused": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "not_acceptable": 406,
    "payload_too_large": 413,
    "unsupported_media_type": 415,
    "rate_limit_exceeded": 429,
    "internal_error": 500,
    "service_unavailable": 503,
}
_CONFLICT: Final = 409
_INTERNAL: Final = 500


class MethodNotAllowedError(GatewayError):
    """The path exists, the method does not; ``allow`` lists those that do."""

    code = "method_not_allowed"

    def __init__(self, allow: str) -> None:
        super().__init__(f"This path does not take that method. Use one of: {allow}.")
        self.allow = allow


class PayloadTooLargeError(GatewayError):
    """The body exceeds the limit."""

    code = "payload_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The body is too large. Send at most {limit} bytes.", details={"max_body_bytes": limit})


class UnsupportedMediaTypeError(GatewayError):
    """The body is not JSON, by its content type."""

    code = "unsupported_media_type"


class CsrfError(GatewayError):
    """A change with the cookie of a session that does not come from the page (contract, section 9)."""

    code = "csrf_refused"


class RateLimitExceededError(GatewayError):
    """The caller has used up its requests; it may call again after ``seconds``."""

    code = "rate_limit_exceeded"

    def __init__(self, limit: int, seconds: int) -> None:
        super().__init__(
            f"More than {limit} requests within a minute. Wait {seconds} s, then send the same request again.",
            details={"retry_after_seconds": seconds},
        )
        self.seconds = seconds


class TooManyRefusalsError(RateLimitExceededError):
    """The address has sent more bad credentials than the limit."""

    def __init__(self, limit: int, seconds: int, *, of: str = "without a good credential") -> None:
        GatewayError.__init__(
            self,
            f"More than {limit} requests from this address came {of} within a minute. Check the "
            f"key or token, and wait {seconds} s. With a good one requests are served meanwhile.",
            details={"retry_after_seconds": seconds},
        )
        self.seconds = seconds


class TooManyStreamsError(RateLimitExceededError):
    """The caller has as many event streams open as it may have."""

    def __init__(self, limit: int) -> None:
        GatewayError.__init__(
            self,
            f"This API key has {limit} event streams open, which is the limit. Close one, or let several readers share "
            "one.",
            details={"limit": limit},
        )
        self.seconds = RETRY_SECONDS


class TooManyScansError(RateLimitExceededError):
    """The caller has as many searches open as it may have."""

    def __init__(self, limit: int) -> None:
        GatewayError.__init__(
            self,
            f"This credential has {limit} searches or counts of devices open, which is the limit. Wait for one to be "
            "answered, then send the same request again.",
            details={"limit": limit, "retry_after_seconds": SCAN_RETRY_SECONDS},
        )
        self.seconds = SCAN_RETRY_SECONDS


def status_of(error: GatewayError) -> int:
    """Return the HTTP status of an error."""
    return _CONFLICT if isinstance(error, ConflictError) else STATUS.get(error.code, _INTERNAL)


def answer(error: GatewayError) -> Response:
    """Return the response for an error. No secret gets into it, not even one that came in the wrong place."""
    body = ErrorBody(code=error.code, message=redact(error.message), details=_clean(error.details))
    return Response(
        ErrorAnswer(error=body).model_dump_json(),
        status_code=status_of(error),
        headers=_headers(error),
        media_type="application/json",
    )


def unexpected(request_id: str) -> GatewayError:
    """Return the error that a caller gets for a bug of the gateway."""
    return GatewayError(
        f"The gateway failed at this request. Its log has the reason under request id {request_id}: report that.",
        details={"request_id": request_id},
    )


def _headers(error: GatewayError) -> dict[str, str]:
    match error:
        case MethodNotAllowedError():
            return {"Allow": error.allow}
        case RateLimitExceededError() | TooSoonError():
            return {"Retry-After": str(error.seconds)}
    if error.code == "unauthorized":
        return {"WWW-Authenticate": "Bearer"}
    return {"Retry-After": str(RETRY_SECONDS)} if error.code == "service_unavailable" else {}


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {redact(str(key)): _clean(each) for key, each in value.items()}
    return [_clean(each) for each in value] if isinstance(value, list | tuple) else value
