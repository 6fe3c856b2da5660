"""Operations of the API: the table's rows, from which routes, checks and the OpenAPI document are made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from gateway.http.callers import Authorization, Caller, DeviceCaller
from gateway.http.responses import ApiResponse, Stream
from gateway.http.services import Services
from gateway.http.unit_of_work import UnitOfWork

T = TypeVar("T", bound=BaseModel)


@dataclass(frozen=True)
class Request:
    """What the client sent, besides the model for the handler."""

    path: Mapping[str, str]
    """Parameters of the path, by name."""
    raw: bytes = b""
    """The body, byte by byte."""
    headers: Mapping[str, str] = field(default_factory=dict)
    is_inside: bool = False
    """Whether the caller is an insider; set where the operation's access needs it."""


@dataclass(frozen=True)
class RequestContext:
    """One authorised request, as its handler gets it."""

    services: Services
    request: Request
    work: UnitOfWork
    identity: Caller | None = None
    """None where the operation is public."""

    @property
    def caller(self) -> Caller:
        """Return the caller of an operation that requires a credential."""
        if self.identity is None:
            raise LookupError("a public operation has no caller")
        return self.identity

    @property
    def device_caller(self) -> DeviceCaller:
        """Return the caller of an operation that only devices may call."""
        if isinstance(self.identity, DeviceCaller):
            return self.identity
        raise LookupError("the caller is no device")

    @property
    def actor(self) -> str:
        """Return the id of the calling key or device, as events name it."""
        return self.caller.id

    @property
    def project_id(self) -> str:
        """Return the project of the caller."""
        return self.caller.project_id

    @property
    def device_id(self) -> str:
        """Return the device that the path names; for a device's own token ``me`` is the device."""
        return self.caller.id if isinstance(self.identity, DeviceCaller) else self.request.path["device_id"]


@dataclass(frozen=True)
class Operation(Generic[T]):
    """One call of the API.

    ``takes`` is the model of the query of a GET or DELETE, and of the body of anything else. ``answers`` are the models
    by status; ``conflicts`` the codes of its 409.
    """

    method: str
    path: str
    summary: str
    description: str
    tag: str
    access: Authorization
    takes: type[T]
    handler: Callable[[RequestContext, T], Awaitable[ApiResponse | Stream]]
    answers: Mapping[int, type[BaseModel] | None]
    conflicts: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    """Descriptions of the headers that only this operation's answer may carry."""
    media_type: str = "application/json"
    """Media type of a successful answer."""
    other_media_types: tuple[str, ...] = ()
    """Media types that a caller can choose instead, by the header ``Accept``."""
    takes_headers: Mapping[str, str] = field(default_factory=dict)
    """Descriptions of the headers that only this operation reads."""

    most_body_bytes: int | None = None
    """Largest body, where it is not the one of the settings."""

    keeps_answers: bool = True
    """False where a repeated request does no harm, and is so frequent that kept answers would fill the disk."""

    @property
    def has_body(self) -> bool:
        """Return whether ``takes`` comes as a body, not as a query."""
        return self.method not in ("GET", "HEAD", "DELETE")

    @property
    def is_idempotent(self) -> bool:
        """Return whether it takes an ``Idempotency-Key``."""
        return self.method == "POST" and self.keeps_answers and not self.access.public

    @property
    def id(self) -> str:
        """Return its name in the OpenAPI document: that of its handler."""
        return getattr(self.handler, "__name__", type(self.handler).__name__)


AnyOperation = Operation[Any]
