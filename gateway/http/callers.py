"""Callers of the API and what each operation asks of them: scopes of an API key, or a device's own token."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from gateway.core.roles import Role
from gateway.models.states import TokenState


@dataclass(frozen=True)
class ApiKeyCaller:
    """A caller with an API key; ``name`` is the key's, for people."""

    id: str
    project_id: str
    scopes: frozenset[str]
    last_used_at: int | None
    name: str | None = None

    @property
    def credential_id(self) -> str:
        """Return the id under which its answers are kept: the key's id, also after a rotation of its secret."""
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
        """Return the id under which its answers are kept: never that of another binding of the same device."""
        return f"{self.id}/{self.token_id}"


@dataclass(frozen=True)
class PersonCaller:
    """A person who signed in through the provider; ``sub`` is the provider's id, ``name`` is for people."""

    session_id: str
    sub: str
    name: str
    project_id: str
    role: Role
    scopes: frozenset[str]
    last_used_at: int | None
    csrf_token: str = field(repr=False)

    @property
    def id(self) -> str:
        """Return the actor: ``user:{sub}``."""
        return f"user:{self.sub}"

    @property
    def credential_id(self) -> str:
        """Return the id under which its answers are kept: that of the session."""
        return self.session_id


Caller = ApiKeyCaller | DeviceCaller | PersonCaller


@dataclass(frozen=True)
class Authorization:
    """Who may call: API keys with this scope (``None``: no key), and the device itself.

    ``reset_only``: also with a token of that state. ``also``: further scopes that a key needs besides ``scope``.
    ``person``: the session of a person alone, no key.
    ``insiders``, for public operations: local callers and keys that may read devices get ``more``, or they ``alone``
    may call (``gateway/http/insiders.py``).
    """

    scope: str | None = None
    also: tuple[str, ...] = ()
    device: bool = False
    reset_only: bool = False
    person: bool = False
    insiders: Literal["", "more", "alone"] = ""

    @property
    def public(self) -> bool:
        """Return whether no credential is required."""
        return self.scope is None and not self.device

    @property
    def scopes(self) -> tuple[str, ...]:
        """Return every scope that an API key needs; empty where no API key may call."""
        return () if self.scope is None else (self.scope, *self.also)


READ = Authorization(scope="devices:read")
WRITE = Authorization(scope="devices:write")
PUBLIC = Authorization()
