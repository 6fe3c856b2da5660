"""SQL of erasures: who is being erased, and the statements that erase."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.store import short_ids
from gateway.store.dialect import SQLITE
from gateway.store.person_sql import pattern
from gateway.store.records import columns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.store.binding_sql import BindingRecord
    from gateway.store.person_sql import NamingCommand
    from gateway.store.transaction import Tx, View


class ErasureRecord(NamedTuple):
    """An end user who is being erased.

    ``last_event`` is the ``seq`` of the newest event when it was asked for, ``requested_at`` milliseconds since the
    epoch, ``counts`` JSON text.
    """

    pseudonym: str
    project_id: str
    end_user_id: str
    actor: str
    requested_at: int
    last_event: int
    counts: str


_ERASURES: Final = f"SELECT {columns(ErasureRecord, 'e')} FROM erasures e"  # noqa: S608 - our own columns


@contextmanager
def overwriting(tx: Tx) -> Iterator[None]:
    """Let SQLite overwrite with zeros what the block deletes. On PostgreSQL a vacuum removes it."""
    if tx.dialect is not SQLITE:
        yield
        return
    tx.run("PRAGMA secure_delete = ON")
    try:
        yield
    finally:
        tx.run("PRAGMA secure_delete = OFF")


def find(view: View, pseudonym: str) -> ErasureRecord | None:
    """Return an open erasure."""
    return view.record(ErasureRecord, f"{_ERASURES} WHERE e.pseudonym = ?", pseudonym)


def of_person(view: View, project_id: str, end_user_id: str) -> ErasureRecord | None:
    """Return the open erasure of this end user."""
    return view.record(
        ErasureRecord, f"{_ERASURES} WHERE e.project_id = ? AND e.end_user_id = ?", project_id, end_user_id
    )


def open_ones(view: View) -> list[ErasureRecord]:
    """Return the open erasures of all projects, oldest first."""
    return view.records(ErasureRecord, f"{_ERASURES} ORDER BY e.requested_at, e.pseudonym")


def insert(tx: Tx, erasure: ErasureRecord) -> None:
    """Store a new one."""
    tx.run(
        f"INSERT INTO erasures ({', '.join(ErasureRecord._fields)}) VALUES ({', '.join('?' * len(erasure))})",  # noqa: S608 - our own columns
        *erasure,
    )


def extend(tx: Tx, pseudonym: str, last_event: int) -> None:
    """Let an open one cover what happened until now, too."""
    tx.run("UPDATE erasures SET last_event = ? WHERE pseudonym = ?", last_event, pseudonym)


def store_counts(tx: Tx, pseudonym: str, counts: dict[str, int]) -> None:
    """Store how much was erased so far."""
    tx.run("UPDATE erasures SET counts = ? WHERE pseudonym = ?", json.dumps(counts), pseudonym)


def counts_told(view: View, project_id: str, pseudonym: str) -> dict[str, int]:
    """Return the counts of an erasure that has ended, from its event; none without one."""
    rows = view.all(
        "SELECT data FROM events WHERE project_id = ? AND type = 'end_user.erased' ORDER BY seq DESC LIMIT 100",
        project_id,
    )
    told = (json.loads(row["data"]) for row in rows)
    counts: dict[str, int] = next((each["counts"] for each in told if each["pseudonym"] == pseudonym), {})
    return counts


def delete(tx: Tx, pseudonym: str) -> None:
    """Delete one that is done."""
    tx.run("DELETE FROM erasures WHERE pseudonym = ?", pseudonym)


def _of_project(view: View) -> str:
    return short_ids.same(view.dialect, "project_id", "?1")


def bound_devices(view: View, project_id: str, end_user_id: str, limit: int) -> list[str]:
    """Return the ids of devices that are bound to this end user now."""
    rows = view.all(
        f"SELECT id FROM devices WHERE {_of_project(view)} AND end_user_id = ?2 ORDER BY pk LIMIT ?3",  # noqa: S608 - a constant
        *(project_id, end_user_id, limit),
    )
    return [row["id"] for row in rows]


def rename_bindings(tx: Tx, project_id: str, end_user_id: str, pseudonym: str) -> int:
    """Replace the id in the person's bindings; return how many there are."""
    return tx.run(
        f"UPDATE bindings SET end_user_id = ?3 WHERE {_of_project(tx)} AND end_user_id = ?2",  # noqa: S608 - a constant
        *(project_id, end_user_id, pseudonym),
    ).rowcount


def delete_bindings(tx: Tx, project_id: str, pseudonym: str) -> None:
    """Delete the bindings of a person who is erased."""
    tx.run(f"DELETE FROM bindings WHERE {_of_project(tx)} AND end_user_id = ?2", project_id, pseudonym)  # noqa: S608 - the same


def delete_refused(tx: Tx, ids: Sequence[int]) -> int:
    """Delete refused messages; return how many."""
    return tx.run(f"DELETE FROM refusals WHERE id IN ({tx.dialect.numbers})", json.dumps(list(ids))).rowcount  # noqa: S608 - a constant


def reports_are_theirs(view: View, binding: BindingRecord) -> bool:
    """Return whether the newest values that the device reported are from this binding: no later one reported any."""
    later = view.one(
        "SELECT 1 FROM bindings WHERE device_pk = ? AND generation > ? LIMIT 1", binding.device_pk, binding.generation
    )
    if later is None:
        return True
    newest = view.value("SELECT history_id FROM health WHERE device_pk = ?", binding.device_pk)
    return newest is not None and newest == binding.last_heartbeat != binding.after_heartbeat


def rename_in_events(tx: Tx, seqs: Sequence[int], end_user_id: str, pseudonym: str) -> int:
    """Replace the id in these events; return how many changed."""
    word = pattern(end_user_id)
    changed = 0
    rows = f"SELECT seq, data, actor FROM events WHERE seq IN ({tx.dialect.numbers})"  # noqa: S608 - a constant
    for row in tx.all(rows, json.dumps(list(seqs))):
        data = word.sub(pseudonym, row["data"])
        if data != row["data"]:
            actor = None if row["actor"] is None else word.sub(pseudonym, row["actor"])
            changed += tx.run("UPDATE events SET data = ?, actor = ? WHERE seq = ?", data, actor, row["seq"]).rowcount
    return changed


def delete_deliveries(tx: Tx, seqs: Sequence[int]) -> int:
    """Delete the ended deliveries of these events; return how many. Pending ones go out with the pseudonym."""
    return tx.run(
        f"DELETE FROM deliveries WHERE status <> 'pending' AND event_seq IN ({tx.dialect.numbers})",  # noqa: S608 - a constant
        json.dumps(list(seqs)),
    ).rowcount


def empty_commands(tx: Tx, command_ids: Sequence[str]) -> int:
    """Delete what people and the device wrote into these final commands; return how many held anything."""
    return tx.run(
        f"""UPDATE commands SET params = '{{}}', result = NULL, error = NULL, idempotency_key = NULL
            WHERE id IN ({tx.dialect.names}) AND final_at IS NOT NULL AND (params <> '{{}}' OR result IS NOT NULL
            OR error IS NOT NULL OR idempotency_key IS NOT NULL)""",  # noqa: S608 - a constant
        json.dumps(list(command_ids)),
    ).rowcount


def rename_in_command(tx: Tx, command: NamingCommand, end_user_id: str, pseudonym: str) -> None:
    """Replace the id in the texts of a final command."""
    word = pattern(end_user_id)
    texts = [None if text is None else word.sub(pseudonym, text) for text in command.texts]
    tx.run(
        "UPDATE commands SET params = ?, result = ?, error = ?, idempotency_key = ? WHERE id = ?", *texts, command.id
    )
