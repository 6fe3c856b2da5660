"""SQL of the outbox: what must yet be brought in step with the registry outside of it.

A row does not hold a message. It says *which* thing is out of step (the retained topic of one command type of one
device, or the device's credential at the broker); whoever works it off reads the committed state of that moment. So a
row can be worked off twice without harm, an old state is never published after a newer one, and what was
not committed is never published at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.store.database import Row, Tx, View

COMMAND: Final = "command"
CREDENTIAL: Final = "credential"


def mark_command(tx: Tx, device_pk: int, command_type: str) -> None:
    """The retained topic of this command type is out of step."""
    _mark(tx, COMMAND, device_pk, command_type)


def mark_credential(tx: Tx, device_pk: int) -> None:
    """The device's right to connect has changed."""
    _mark(tx, CREDENTIAL, device_pk, "")


def _mark(tx: Tx, kind: str, device_pk: int, detail: str) -> None:
    tx.outbox_marked = True
    # REPLACE gives the row a new number, so that a publisher which is at work on the old one leaves this one be.
    tx.run(
        "INSERT OR REPLACE INTO outbox (kind, device_pk, detail, created_at) VALUES (?, ?, ?, ?)",
        kind,
        device_pk,
        detail,
        tx.now,
    )


def pending(view: View, kind: str, limit: int) -> list[Row]:
    """The oldest rows of this kind, each with its ``device_id``."""
    return view.all(
        """SELECT o.*, d.id AS device_id FROM outbox o JOIN devices d ON d.pk = o.device_pk
            WHERE o.kind = ? ORDER BY o.seq LIMIT ?""",
        kind,
        limit,
    )


def done(tx: Tx, seqs: list[int]) -> None:
    """These rows have been worked off; one that was marked again meanwhile has another number and stays."""
    tx.connection.executemany("DELETE FROM outbox WHERE seq = ?", [(seq,) for seq in seqs])


def has(view: View, kind: str, device_pk: int, detail: str = "") -> bool:
    """Whether this thing is out of step."""
    found = view.one("SELECT 1 FROM outbox WHERE kind = ? AND device_pk = ? AND detail = ?", kind, device_pk, detail)
    return found is not None


def depth(view: View) -> tuple[int, int | None]:
    """How many rows wait, and since when (milliseconds since the epoch) the oldest does."""
    row = view.one("SELECT count(*), min(created_at) FROM outbox")
    return (0, None) if row is None else (row[0], row[1])
