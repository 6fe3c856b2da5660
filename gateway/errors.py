"""What can go wrong in the domain, each with a code of the contract and a message that says what to do."""

from __future__ import annotations

from typing import Any

from gateway.core.redaction import redact


class GatewayError(Exception):
    """Base of every expected error: a code, a sentence for people, facts for machines."""

    code = "internal_error"

    def __init__(self, message: str, *, details: dict[str, Any] | None = None) -> None:
        self.message = redact(message)  # it may repeat what was asked, a token in a path for one
        super().__init__(self.message)
        self.details = details or {}


class InvalidRequestError(GatewayError):
    """The request cannot be understood; ``details`` name the fields."""

    code = "invalid_request"


class UnauthorizedError(GatewayError):
    """No credential, or one that opens nothing here."""

    code = "unauthorized"


class InsufficientScopeError(GatewayError):
    """A good credential without the right to do this."""

    code = "insufficient_scope"


class NotFoundError(GatewayError):
    """No such thing in this project."""

    code = "not_found"


class ConflictError(GatewayError):
    """The state of the device or command forbids it; ``code`` says which rule."""

    def __init__(self, code: str, message: str, *, details: dict[str, Any] | None = None) -> None:
        super().__init__(message, details=details)
        self.code = code


class TooSoonError(GatewayError):
    """The same was done a moment ago; it may be asked for again in ``seconds``."""

    code = "rate_limit_exceeded"

    def __init__(self, message: str, seconds: int) -> None:
        super().__init__(message, details={"retry_after_seconds": seconds})
        self.seconds = seconds


class UnavailableError(GatewayError):
    """Something that is needed for this is away; the same request may succeed later."""

    code = "service_unavailable"


class BacklogError(UnavailableError):
    """The broker may keep a word of the device that decides this, and the gateway has not taken it in yet."""


class StoreError(UnavailableError):
    """SQLite could not commit: disk full, read only or damaged. Nothing was half done."""


class AlreadyRunningError(GatewayError):
    """Another gateway holds this data directory."""

    code = "already_running"
