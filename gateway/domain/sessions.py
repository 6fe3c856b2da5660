"""Sessions of people: begin, end, expire (contract, section 9). Each change has its event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from gateway.core.clock import DAY_MS, to_rfc3339
from gateway.core.sealed_text import NONCE_BYTES, seal, unseal
from gateway.errors import NotFoundError, UnauthorizedError
from gateway.models.events import EventType
from gateway.store import event_sql, people_sql, session_sql

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.core.roles import Role
    from gateway.store import Tx, View
    from gateway.store.session_sql import SessionRecord

Because = Literal[
    "signed_out",
    "signed_out_at_provider",
    "replaced",
    "role_gone",
    "provider_refused",
    "expired",
    "revoked",
    "restored",
]
"""Why a session ended."""
KEPT_MS: Final = DAY_MS
"""How long a session that has ended stays in the list."""
STATE_KEPT_MS: Final = DAY_MS
"""How long the state of a sign-in is remembered: much longer than it is good for."""
ENDED_AT_ONCE: Final = 1_000
_PURPOSE: Final = "tokens of the provider"


class Person(NamedTuple):
    """A person as the provider names them, and the provider's id of its own session, if it says one."""

    sub: str
    name: str
    sid: str | None = None


class Grant(NamedTuple):
    """What a person may do: a role in a project."""

    project_id: str
    role: Role


class Started(NamedTuple):
    """A new session, and its secret, which the cookie holds."""

    session: SessionRecord
    secret: str


def start(tx: Tx, person: Person, grant: Grant, lasts_ms: int, *, tokens: str, state: str) -> Started:
    """Begin a session that lasts so long. ``tokens`` is sealed under its secret, ``state`` can be used once.

    Raises:
        UnauthorizedError: this state has begun a session before.
    """
    if not session_sql.spend(tx, state, tx.now + STATE_KEPT_MS):
        raise UnauthorizedError("This sign-in was completed before. Start again.")
    people_sql.save(tx, person.sub, person.name)
    secret = session_sql.new_secret(tx)
    session_id = session_sql.insert(
        tx, secret, person.sub, grant.project_id, grant.role, sid=person.sid, expires_at=tx.now + lasts_ms
    )
    session_sql.seal(tx, session_id, sealed_tokens(tx, secret, tokens))
    session = _require(tx, session_id)
    _record(tx, session, EventType.SESSION_STARTED, people_sql.actor_of(person.sub))
    return Started(session, secret)


def sealed_tokens(tx: Tx, secret: str, tokens: str) -> bytes:
    """Return tokens of the provider as they are stored: only the cookie of the session opens them."""
    return seal(secret, _PURPOSE, tokens, tx.entropy(NONCE_BYTES))


def tokens_of(session: SessionRecord, secret: str) -> str | None:
    """Return the provider's tokens of a session, or None without any."""
    return None if session.sealed is None else unseal(secret, _PURPOSE, session.sealed)


def end(tx: Tx, sessions: Iterable[SessionRecord], because: Because, actor: str | None = None) -> int:
    """End these sessions, unless they have ended; return how many. ``actor`` is the person where none is given."""
    number = 0
    for each in sessions:
        if session_sql.end(tx, each.id, because):
            _record(tx, each, EventType.SESSION_ENDED, actor or people_sql.actor_of(each.sub), because=because)
            number += 1
    return number


def end_at_provider(tx: Tx, *, sub: str | None, sid: str | None, token_id: str, token_until: int) -> int | None:
    """End what the provider's back channel names; return how many, or None where this message came before.

    With a ``sid`` it is that session of the provider, otherwise every session of the person.
    """
    if not session_sql.spend(tx, f"logout {token_id}", token_until):
        return None
    named = session_sql.open_of_sid(tx, sid) if sid is not None else session_sql.open_of_person(tx, sub or "")
    return end(tx, [each for each in named if sub in (None, each.sub)], "signed_out_at_provider", "gateway")


def revoke(tx: Tx, wanted: str, actor: str) -> list[SessionRecord]:
    """End the session with this id, or all of the person with this ``sub`` or actor; return them.

    Raises:
        NotFoundError: no such session is open.
    """
    by_id = session_sql.by_id(tx, wanted)
    named = [by_id] if by_id is not None else session_sql.open_of_person(tx, wanted.removeprefix(people_sql.PERSON))
    found = [each for each in named if each.ended_at is None]
    if not found:
        raise NotFoundError(f"There is no open session '{wanted}'. 'gateway sessions list' shows those there are.")
    end(tx, found, "revoked", actor)
    return found


def end_all(tx: Tx, because: Because) -> int:
    """End every session, such as after a restore: sessions that had ended since the backup would be good again."""
    return end(tx, session_sql.everyone(tx), because, "gateway")


def prune(tx: Tx) -> int:
    """Mark sessions as ended whose time is over, and delete old ones and people without events; return how many."""
    expired = end(tx, session_sql.overdue(tx, tx.now, ENDED_AT_ONCE), "expired", "gateway")
    gone = session_sql.prune(tx, tx.now - KEPT_MS)
    return expired + gone + people_sql.prune(tx, tx.now - tx.rules.event_history_days * DAY_MS)


def _require(view: View, session_id: str) -> SessionRecord:
    found = session_sql.by_id(view, session_id)
    if found is None:
        raise NotFoundError(f"There is no session {session_id}.")
    return found


def _record(tx: Tx, session: SessionRecord, kind: EventType, actor: str, **facts: Any) -> None:
    event_sql.record_administrative(
        tx,
        session.project_id,
        kind,
        actor,
        session_id=session.id,
        person=people_sql.actor_of(session.sub),
        role=session.role,
        expires_at=to_rfc3339(session.expires_at),
        **facts,
    )
