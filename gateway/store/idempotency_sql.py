"""SQL of answers kept under an ``Idempotency-Key``, so that a repeated request is answered, not done again.

Answers are sealed before they come here. See ``gateway/http/idempotency.py``.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.core.clock import DAY_MS

if TYPE_CHECKING:
    from gateway.store.transaction import Tx, View

KEPT_MS: Final = DAY_MS
"""How long an answer is kept: 24 h (contract, section 2)."""

MOST: Final = 1_000_000
"""Maximum number kept, the newest: more than one caller can make in 24 h at the default rate limit."""

ROW_BYTES: Final = 256
"""Approximate size of a row besides its answer, with its part of the indexes."""

MOST_BYTES_OF_KEY: Final = 256 * 2**20
MOST_BYTES_OF_DEVICE: Final = 2**20
"""Bytes kept per API key, and per device over all of its tokens. Beyond that the oldest are deleted."""

_SOME: Final = 100


class KeptAnswer(NamedTuple):
    """A kept answer: the hash of its request, its HTTP status, and the sealed body with its nonce."""

    request_hash: bytes
    status: int
    answer: bytes


def find(view: View, caller: str, key_hash: bytes, now: int) -> KeptAnswer | None:
    """Return this caller's answer under this key within the last 24 h."""
    return view.record(
        KeptAnswer,
        "SELECT request_hash, status, answer FROM idempotency WHERE caller = ? AND key_hash = ? AND created_at > ?",
        caller,
        key_hash,
        now - KEPT_MS,
    )


def keep(tx: Tx, caller: str, key_hash: bytes, kept: KeptAnswer, end_user_id: str | None, most_bytes: int) -> None:
    """Keep an answer, in the transaction that it reports. ``end_user_id`` is whom it names.

    The oldest answers of the same owner are deleted beyond ``most_bytes``: a caller that sends a new key each time
    would otherwise fill the disk.
    """
    owner = caller.partition("/")[0]
    # One that is older than 24 h may not have been pruned yet.
    _delete(tx, "SELECT seq FROM idempotency WHERE caller = ? AND key_hash = ?", caller, key_hash)
    tx.run(
        """INSERT INTO idempotency (caller, owner, key_hash, request_hash, status, answer, created_at, end_user_id)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?)""",
        *(caller, owner, key_hash, *kept, tx.now, end_user_id),
    )
    _add_use(tx, owner, len(kept.answer) + ROW_BYTES)
    used = tx.value("SELECT bytes FROM idempotency_use WHERE owner = ?", owner)
    while used > most_bytes:
        oldest = tx.all(
            "SELECT seq, length(answer) AS bytes FROM idempotency WHERE owner = ? ORDER BY seq LIMIT ?", owner, _SOME
        )
        for row in oldest[:-1] if len(oldest) < _SOME else oldest:  # never the one that was just kept
            if used > most_bytes:
                _delete(tx, "SELECT ?", row["seq"])
                used -= row["bytes"] + ROW_BYTES
        if len(oldest) < _SOME:
            break


def prune(tx: Tx, limit: int = 5_000, most: int = MOST) -> int:
    """Delete up to ``limit`` that are older than 24 h, and as many beyond ``most``; return how many."""
    old = _delete(
        tx,
        "SELECT seq FROM idempotency WHERE created_at <= ? ORDER BY created_at LIMIT ?",
        *(tx.now - KEPT_MS, limit),
    )
    too_many = _delete(
        tx,
        """SELECT seq FROM idempotency
            WHERE seq <= (SELECT max(seq) FROM idempotency) - ? ORDER BY seq LIMIT ?""",
        *(most, limit),
    )
    return old + too_many


def erase(tx: Tx, project_id: str, end_user_id: str, limit: int) -> int:
    """Delete up to ``limit`` answers to this project's callers that name the end user; return how many."""
    return _delete(
        tx,
        """SELECT seq FROM idempotency WHERE end_user_id = ? AND owner NOT IN
            (SELECT id FROM api_keys WHERE project_id <> ?) ORDER BY seq LIMIT ?""",
        *(end_user_id, project_id, limit),
    )


def _delete(tx: Tx, chosen: str, *values: object) -> int:
    """Delete the rows that a statement selects, and subtract their bytes; return how many."""
    went = tx.run(
        f"DELETE FROM idempotency WHERE seq IN ({chosen}) RETURNING owner, length(answer) AS bytes",  # noqa: S608 - a constant command
        *values,
    ).fetchall()
    freed = Counter[str]()
    for row in went:
        freed[row["owner"]] += row["bytes"] + ROW_BYTES
    for owner, count in freed.items():
        _add_use(tx, owner, -count)
        tx.run("DELETE FROM idempotency_use WHERE owner = ? AND bytes <= 0", owner)
    return len(went)


def _add_use(tx: Tx, owner: str, count: int) -> None:
    tx.run(
        """INSERT INTO idempotency_use (owner, bytes) VALUES (?, ?)
            ON CONFLICT (owner) DO UPDATE SET bytes = idempotency_use.bytes + excluded.bytes""",
        owner,
        count,
    )
