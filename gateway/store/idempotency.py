"""SQL of answers kept under an ``Idempotency-Key``, so that a request that comes again is answered and not done again.

What was answered is sealed by those who keep it; here lie bytes. See ``gateway/http/idempotency.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.store.database import Row, Tx, View

KEPT_MS: Final = 86_400_000
"""How long an answer is kept: 24 h (contract, section 2)."""

MOST: Final = 1_000_000
"""How many are kept at most, the newest: more than one caller can make in 24 h at the default rate limit."""


def find(view: View, caller: str, key_hash: bytes, now: int) -> Row | None:
    """What this caller was answered under this key within the last 24 h."""
    return view.one(
        "SELECT * FROM idempotency WHERE caller = ? AND key_hash = ? AND created_at > ?",
        caller,
        key_hash,
        now - KEPT_MS,
    )


def keep(tx: Tx, caller: str, key_hash: bytes, request_hash: bytes, status: int, answer: bytes) -> None:
    """Keep an answer, in the transaction that did what it tells."""
    # REPLACE: one that is older than 24 h may not have been pruned yet.
    tx.run(
        """INSERT OR REPLACE INTO idempotency (caller, key_hash, request_hash, status, answer, created_at)
            VALUES (?, ?, ?, ?, ?, ?)""",
        caller,
        key_hash,
        request_hash,
        status,
        answer,
        tx.now,
    )


def prune(tx: Tx, limit: int = 5_000, most: int = MOST) -> int:
    """Drop up to ``limit`` that are older than 24 h, and as many that are more than ``most``; how many went."""
    old = tx.run(
        """DELETE FROM idempotency WHERE seq IN
            (SELECT seq FROM idempotency WHERE created_at <= ? ORDER BY created_at LIMIT ?)""",
        *(tx.now - KEPT_MS, limit),
    ).rowcount
    too_many = tx.run(
        """DELETE FROM idempotency WHERE seq IN (SELECT seq FROM idempotency
            WHERE seq <= (SELECT max(seq) FROM idempotency) - ? ORDER BY seq LIMIT ?)""",
        *(most, limit),
    ).rowcount
    return old + too_many
