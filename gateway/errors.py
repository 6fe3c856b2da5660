"""Errors of the domain, each with a code of the contract and a message that names the remedy."""

from __future__ import annotations

from typing import Any

from gateway.core.redaction import redact


class GatewayError(Exception):
    """Base of every expected error: a code, a sentence for people, details for programs."""

    code = "internal_error"

    def __init__(self, message: str, *, details: dict[str, Any] | None = None) -> None:
        self.message = redact(message)  # it may quote the request, such as a token in a path
        super().__init__(self.message)
        self.details = details or {}


class InvalidRequestError(GatewayError):
    """The request cannot be understood; ``details`` name the fields."""

    code = "invalid_request"


class UnauthorizedError(GatewayError):
    """No credential, or one that is not good here."""

    code = "unauthorized"


class InsufficientScopeError(GatewayError):
    """A good credential without the right to do this."""

    code = "insufficient_scope"


class NotFoundError(GatewayError):
    """This project has no such thing."""

    code = "not_found"


class ConflictError(GatewayError):
    """The state of the device or command forbids it; ``code`` says which rule."""

    def __init__(self, code: str, message: str, *, details: dict[str, Any] | None = None) -> None:
        super().__init__(message, details=details)
        self.code = code


class TooSoonError(GatewayError):
    """The same was done a moment ago. It may be tried again after ``seconds``."""

    code = "rate_limit_exceeded"

    def __init__(self, message: str, seconds: int) -> None:
        super().__init__(message, details={"retry_after_seconds": seconds})
        self.seconds = seconds


class UnavailableError(GatewayError):
    """Something that this needs is unavailable. The same request may succeed later."""

    code = "service_unavailable"


class BacklogError(UnavailableError):
    """The broker may hold a message of the device that decides this, and the gateway has not read it yet."""


class StoreError(UnavailableError):
    """The database could not commit: disk full, read only or damaged. Nothing was half done."""


class AlreadyRunningError(GatewayError):
    """Another gateway holds this data directory, or runs under this ``gateway_id`` on the registry."""

    code = "already_running"
