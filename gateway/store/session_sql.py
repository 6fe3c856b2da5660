"""SQL of sessions of people, and of values that may be used once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.core import ids
from gateway.core.credentials import SESSION_SECRET, hash_secret, mint, same_hash
from gateway.store.records import columns

if TYPE_CHECKING:
    from gateway.core.roles import Role
    from gateway.store.transaction import Tx, View


class SessionRecord(NamedTuple):
    """A session with the names of its person and project; times are milliseconds since the epoch.

    ``sid`` is the provider's id of its own session. ``checked_at`` is when the role was last asked for at the
    provider, ``confirmed_at`` when the provider last confirmed it. ``sealed`` holds the provider's tokens.
    """

    id: str
    hash: bytes
    sub: str
    name: str
    project_id: str
    project: str
    role: Role
    sid: str | None
    created_at: int
    last_used_at: int
    checked_at: int
    confirmed_at: int
    expires_at: int
    ended_at: int | None
    ended_because: str | None
    sealed: bytes | None

    def __repr__(self) -> str:
        """Return what may be logged."""
        return f"SessionRecord(id={self.id!r}, project_id={self.project_id!r})"

    def is_good(self, now: int) -> bool:
        """Return whether it opens anything at ``now``. It ends as well when the clock is set back by its whole time."""
        lasts = self.expires_at - self.created_at
        return self.ended_at is None and self.created_at - lasts <= now < self.expires_at


_PERSON_NAME: Final = "(SELECT p.name FROM people p WHERE p.sub = s.sub)"
_PROJECT_NAME: Final = "(SELECT p.name FROM projects p WHERE p.id = s.project_id)"
_SESSIONS: Final = f"""SELECT {columns(SessionRecord, "s", name=_PERSON_NAME, project=_PROJECT_NAME)}
    FROM sessions s"""  # noqa: S608 - our own columns


def new_secret(tx: Tx) -> str:
    """Return the secret of a new session, which its cookie holds."""
    return mint(SESSION_SECRET, tx.entropy)


def insert(tx: Tx, secret: str, sub: str, project_id: str, role: Role, *, sid: str | None, expires_at: int) -> str:
    """Store a session of a known person; return its id. ``expires_at`` is in milliseconds since the epoch."""
    session_id = tx.new_id(ids.SESSION)
    tx.run(
        """INSERT INTO sessions (id, hash, sub, project_id, role, sid, created_at, last_used_at, checked_at,
            confirmed_at, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?7, ?7, ?8)""",
        *(session_id, hash_secret(secret), sub, project_id, role, sid, tx.now, expires_at),
    )
    return session_id


def seal(tx: Tx, session_id: str, sealed: bytes) -> None:
    """Store the provider's tokens of a session, sealed under the session's secret."""
    tx.run("UPDATE sessions SET sealed = ? WHERE id = ?", sealed, session_id)


def by_secret(view: View, secret: str) -> SessionRecord | None:
    """Return the session with this secret, whether it has ended or not."""
    given = hash_secret(secret)
    found = view.record(SessionRecord, f"{_SESSIONS} WHERE s.hash = ?", given)
    return found if found is not None and same_hash(found.hash, given) else None


def by_id(view: View, session_id: str) -> SessionRecord | None:
    """Return the session with this id."""
    return view.record(SessionRecord, f"{_SESSIONS} WHERE s.id = ?", session_id)


def everyone(view: View) -> list[SessionRecord]:
    """Return every session that is stored, the newest first."""
    return view.records(SessionRecord, f"{_SESSIONS} ORDER BY s.id DESC")


def open_of_person(view: View, sub: str) -> list[SessionRecord]:
    """Return the sessions of a person that have not ended."""
    return view.records(SessionRecord, f"{_SESSIONS} WHERE s.sub = ? AND s.ended_at IS NULL ORDER BY s.id", sub)


def open_of_sid(view: View, sid: str) -> list[SessionRecord]:
    """Return the sessions that belong to this session at the provider, and have not ended."""
    return view.records(SessionRecord, f"{_SESSIONS} WHERE s.sid = ? AND s.ended_at IS NULL ORDER BY s.id", sid)


def overdue(view: View, now: int, limit: int) -> list[SessionRecord]:
    """Return sessions whose time is over and that are not marked as ended."""
    return view.records(
        SessionRecord,
        f"{_SESSIONS} WHERE s.ended_at IS NULL AND s.expires_at <= ? ORDER BY s.id LIMIT ?",
        *(now, limit),
    )


def touch(tx: Tx, session_id: str, before: int) -> None:
    """Record that the session is in use, unless that was recorded at or after ``before`` (milliseconds)."""
    tx.run(
        "UPDATE sessions SET last_used_at = ?1 WHERE id = ?2 AND (last_used_at < ?3 OR last_used_at > ?1)",
        *(tx.now, session_id, before),
    )


def claim_check(tx: Tx, session_id: str, checked_at: int) -> bool:
    """Take over the check of a session's role; False where another request has done so since ``checked_at``.

    Of several requests one alone may use the refresh token: most providers replace it at each use.
    """
    claimed = tx.run(
        "UPDATE sessions SET checked_at = ? WHERE id = ? AND checked_at = ? AND ended_at IS NULL",
        *(tx.now, session_id, checked_at),
    )
    return claimed.rowcount > 0


def confirm(tx: Tx, session_id: str, role: Role, sealed: bytes) -> None:
    """Record that the provider confirmed the role of a session, with its newest tokens."""
    tx.run(
        "UPDATE sessions SET confirmed_at = ?, role = ?, sealed = ? WHERE id = ? AND ended_at IS NULL",
        *(tx.now, role, sealed, session_id),
    )


def end(tx: Tx, session_id: str, because: str) -> bool:
    """Mark a session as ended, and delete the provider's tokens; False where it had ended already."""
    ended = tx.run(
        "UPDATE sessions SET ended_at = ?, ended_because = ?, sealed = NULL WHERE id = ? AND ended_at IS NULL",
        *(tx.now, because, session_id),
    )
    return ended.rowcount > 0


def prune(tx: Tx, before: int) -> int:
    """Delete sessions that ended before that time (milliseconds), and spent values that expired; return how many."""
    gone = tx.run("DELETE FROM sessions WHERE ended_at < ?", before).rowcount
    return gone + tx.run("DELETE FROM spent_tokens WHERE expires_at <= ?", tx.now).rowcount


def spend(tx: Tx, value: str, expires_at: int) -> bool:
    """Record the use of a value that may be used once; False where it was used before.

    It is remembered until ``expires_at`` (milliseconds since the epoch). Only its hash is stored.
    """
    spent = tx.run(
        "INSERT INTO spent_tokens (hash, expires_at) VALUES (?, ?) ON CONFLICT (hash) DO NOTHING",
        *(hash_secret(value), expires_at),
    )
    return spent.rowcount > 0
