"""What an operation is: one row of the table from which routes, checks and the OpenAPI document are made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from gateway.http.services import Services
from gateway.model import TokenState

T = TypeVar("T", bound=BaseModel)


@dataclass(frozen=True)
class ApiKey:
    """A caller with an API key."""

    id: str
    project_id: str
    scopes: frozenset[str]
    last_used_at: int | None


@dataclass(frozen=True)
class DeviceToken:
    """A device that calls with its own token, ``active`` or ``reset_only``."""

    id: str
    project_id: str
    token_id: int
    state: TokenState
    used_before: bool


Caller = ApiKey | DeviceToken


@dataclass(frozen=True)
class Access:
    """Who may call: API keys with this scope (``None``: none), the device itself, also with a ``reset_only`` token."""

    scope: str | None = None
    device: bool = False
    reset_only: bool = False

    @property
    def public(self) -> bool:
        """Whether no credential is asked for."""
        return self.scope is None and not self.device


READ = Access(scope="devices:read")
WRITE = Access(scope="devices:write")
PUBLIC = Access()


@dataclass(frozen=True)
class Call:
    """One request that has been authenticated, as the handler of its operation gets it."""

    services: Services
    caller: Caller | None
    path: Mapping[str, str]
    raw: bytes
    document: bytes
    """The OpenAPI document."""

    @property
    def actor(self) -> str:
        """The id of the key or device that calls."""
        return self.known.id

    @property
    def project_id(self) -> str:
        """The project whose things the caller sees."""
        return self.known.project_id

    @property
    def known(self) -> Caller:
        """The caller of an operation that asks for a credential."""
        if self.caller is None:
            raise LookupError("a public operation has no caller")
        return self.caller

    @property
    def token(self) -> DeviceToken:
        """The caller of an operation that only devices may call."""
        if isinstance(self.caller, DeviceToken):
            return self.caller
        raise LookupError("the caller is no device")

    @property
    def device_id(self) -> str:
        """The device that the path names; for its own token ``me`` is the device."""
        return self.known.id if isinstance(self.caller, DeviceToken) else self.path["device_id"]


@dataclass(frozen=True)
class Answer:
    """What a handler answers: a model (or bytes that are JSON already), its status, and headers beside the usual."""

    body: BaseModel | bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    exclude: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Operation(Generic[T]):
    """One call of the API.

    ``takes`` is the model of the query of a GET, and of the body of anything else. ``answers`` are the models by
    status; ``conflicts`` the codes of its 409.
    """

    method: str
    path: str
    summary: str
    description: str
    tag: str
    access: Access
    takes: type[T]
    handler: Callable[[Call, T], Awaitable[Answer]]
    answers: Mapping[int, type[BaseModel] | None]
    conflicts: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    """Descriptions of the headers that only this operation's answer may carry."""

    @property
    def id(self) -> str:
        """Its name in the OpenAPI document: that of its handler."""
        return getattr(self.handler, "__name__", type(self.handler).__name__)


AnyOperation = Operation[Any]
