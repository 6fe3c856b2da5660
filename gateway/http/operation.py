"""What an operation is: one row of the table from which routes, checks and the OpenAPI document are made."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, TypeVar

from pydantic import BaseModel

from gateway.errors import GatewayError
from gateway.http.idempotency import REPLAYED, IdempotentRequest
from gateway.http.services import Services
from gateway.models.model import TokenState
from gateway.store import Deadline, Purpose, Tx, View

T = TypeVar("T", bound=BaseModel)
R = TypeVar("R")
M = TypeVar("M", bound=BaseModel)

_DONE: Final = 200
READ_SECONDS: Final = 10.0
"""How long a read of a request may take, if an index finds what it looks for."""


@dataclass(frozen=True)
class ApiKeyCaller:
    """A caller with an API key."""

    id: str
    project_id: str
    scopes: frozenset[str]
    last_used_at: int | None

    @property
    def credential_id(self) -> str:
        """Under which its answers are kept: the key's id, also after its secret was rotated."""
        return self.id


@dataclass(frozen=True)
class DeviceCaller:
    """A device that calls with its own token, ``active`` or ``reset_only``."""

    id: str
    project_id: str
    token_id: int
    state: TokenState
    used_before: bool

    @property
    def credential_id(self) -> str:
        """Under which its answers are kept: never those of another binding of the same device."""
        return f"{self.id}/{self.token_id}"


Caller = ApiKeyCaller | DeviceCaller


@dataclass(frozen=True)
class Authorization:
    """Who may call: API keys with this scope (``None``: none), the device itself, also with a ``reset_only`` token.

    ``also``: further scopes that a key needs, all of them, besides ``scope``.
    ``insiders``: of what is public, whether those on the machine and keys that may read devices are told ``more``, or
    it is for them ``alone`` (``gateway/http/insiders.py``).
    """

    scope: str | None = None
    also: tuple[str, ...] = ()
    device: bool = False
    reset_only: bool = False
    insiders: Literal["", "more", "alone"] = ""

    @property
    def public(self) -> bool:
        """Whether no credential is asked for."""
        return self.scope is None and not self.device

    @property
    def scopes(self) -> tuple[str, ...]:
        """Every scope that an API key needs; none where no API key may call."""
        return () if self.scope is None else (self.scope, *self.also)


READ = Authorization(scope="devices:read")
WRITE = Authorization(scope="devices:write")
PUBLIC = Authorization()


@dataclass(frozen=True)
class ApiResponse:
    """What a handler answers: a model (or bytes that are JSON already), its status, and headers beside the usual."""

    body: BaseModel | bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    exclude: frozenset[str] = frozenset()

    @property
    def content(self) -> bytes:
        """The body as it is sent."""
        if isinstance(self.body, bytes):
            return self.body
        return self.body.model_dump_json(exclude=set(self.exclude)).encode()


@dataclass(frozen=True)
class Stream:
    """An answer without an end of its own: its parts as they come. ``gateway/http/streaming.py`` tells what ends it."""

    parts: AsyncGenerator[bytes, None]
    media_type: str
    headers: Mapping[str, str] = field(default_factory=dict)


class ReplayError(Exception):
    """The request was done before; ``answer`` is what it was answered then."""

    def __init__(self, answer: ApiResponse) -> None:
        super().__init__("done before")
        self.answer = answer


@dataclass(frozen=True)
class RequestContext:
    """One request that has been authenticated, as the handler of its operation gets it."""

    services: Services
    caller: Caller | None
    path: Mapping[str, str]
    raw: bytes
    document: Callable[[], bytes]
    """Makes the OpenAPI document, or has it."""
    once: IdempotentRequest | None = None
    """Set when the request carries an ``Idempotency-Key``."""
    headers: Mapping[str, str] = field(default_factory=dict)
    client_address: str | None = None
    """Where a request with an API key came from; none of a device's own: that would tell where its wearer is."""
    is_inside: bool = False
    """Whether the caller may know how the gateway is; asked for where the operation's access says so."""

    async def read(self, read: Callable[[View], R]) -> R:
        """Read something that an index finds.

        Raises:
            DeadlineError: it took too long.
            StoreError: SQLite could not read.
        """
        return await self.services.store.read(read, Purpose.REQUESTS, deadline=Deadline(READ_SECONDS))

    async def scan(self, read: Callable[[View], R]) -> R:
        """Read something that may look at many rows: one such read of a caller at a time, so that others get theirs.

        Raises:
            TooManyScansError: the caller has as many of them open as it may have.
            DeadlineError: it took too long.
            StoreError: SQLite could not read.
        """
        async with self.services.scans.turn(self.known.id) as deadline:
            return await self.services.store.read(read, Purpose.SCANS, deadline=deadline)

    async def commit(self, write: Callable[[Tx], ApiResponse | GatewayError]) -> ApiResponse:
        """Do it and make the answer, in one transaction, so that a request with an ``Idempotency-Key`` is done once.

        An error that ``write`` raises undoes everything. One that it returns is raised after the commit; it isn't
        kept, so whatever such a call writes must do no harm when it is written again.

        Raises:
            ReplayError: the request was done before.
        """

        def commit(tx: Tx) -> ApiResponse | GatewayError:
            outcome = write(tx)
            if self.once is not None and isinstance(outcome, ApiResponse):
                self.once.keep(tx, outcome.status, outcome.content)
            return outcome

        outcome = await self._step(commit)
        if isinstance(outcome, GatewayError):
            raise outcome
        return outcome

    async def step(self, name: str, kind: type[M], write: Callable[[Tx], M]) -> M:
        """One transaction of several, before the one that is for :meth:`commit`.

        After a crash between them a request with an ``Idempotency-Key`` is repeated; what its parts did is not: the
        outcome of each is kept with it. ``name`` tells a part from the others of the same request.

        Raises:
            ReplayError: the request was done before, all of it.
        """
        if self.once is None:
            return await self._step(write)
        once = self.once

        def step(tx: Tx) -> M:
            found = once.find(tx, tx.now, name)
            if found is not None:
                return kind.model_validate_json(found[1])
            outcome = write(tx)
            once.keep(tx, _DONE, outcome.model_dump_json().encode(), name)
            return outcome

        return await self._step(step)

    async def _step(self, write: Callable[[Tx], R]) -> R:
        def step(tx: Tx) -> R:
            tx.client_address = self.client_address
            self.replay(tx)
            return write(tx)

        return await self.services.store.write(step)

    def replay(self, view: View) -> None:
        """Do nothing, unless the request was done before.

        Raises:
            ReplayError: it was.
            ConflictError: ``idempotency_mismatch``.
        """
        found = None if self.once is None else self.once.find(view, self.services.store.context.clock())
        if found is not None:
            raise ReplayError(ApiResponse(found[1], status=found[0], headers={REPLAYED: "true"}))

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
    def token(self) -> DeviceCaller:
        """The caller of an operation that only devices may call."""
        if isinstance(self.caller, DeviceCaller):
            return self.caller
        raise LookupError("the caller is no device")

    @property
    def device_id(self) -> str:
        """The device that the path names; for its own token ``me`` is the device."""
        return self.known.id if isinstance(self.caller, DeviceCaller) else self.path["device_id"]


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
    """Of what it answers when all is well."""
    takes_headers: Mapping[str, str] = field(default_factory=dict)
    """Descriptions of the headers that only this operation looks at."""

    keeps_answers: bool = True
    """False where a request that comes again does no harm, and comes so often that its answers would fill the disk."""

    @property
    def has_body(self) -> bool:
        """Whether ``takes`` comes as a body, not as a query."""
        return self.method not in ("GET", "HEAD", "DELETE")

    @property
    def once(self) -> bool:
        """Whether it takes an ``Idempotency-Key``."""
        return self.method == "POST" and self.keeps_answers and not self.access.public

    @property
    def id(self) -> str:
        """Its name in the OpenAPI document: that of its handler."""
        return getattr(self.handler, "__name__", type(self.handler).__name__)


AnyOperation = Operation[Any]
