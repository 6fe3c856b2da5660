"""SQL of the outbox: what outside of the registry is out of step with it.

A row holds no message. It names what is out of step: the retained topic of one command type of one device, another
retained topic of it, or its credential at the broker. The worker that handles it reads the state committed at that
moment. So a row can be handled twice without harm, an old state is never published after a newer one, and what was not
committed is never published at all.

A row may wait for its turn, so that a bulk reset reaches the fleet at a steady pace: ``not_before`` is 0 for at once.

A row belongs to one broker. A change marks it for each broker that serves the device: for its home, or for all of the
registry (:mod:`gateway.store.broker_sql`). The owner of each works its own rows off. So what one broker has says
nothing of another.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.core.clock import SECOND_MS
from gateway.store.broker_sql import FIRST, FOLLOWED, serves
from gateway.store.records import columns

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from gateway.store.transaction import Rules, Tx, View

COMMAND: Final = "command"
CREDENTIAL: Final = "credential"
TOPIC: Final = "topic"
STATUS: Final = "status"
"""The ``detail`` of a ``topic`` is the topic's last level."""

MIRROR: Final = "mirror"
"""What integrators see of a device, retained: the ``detail`` is one of the following."""
STATE: Final = "state"
DISCOVERY: Final = "discovery"
PROJECT_STATE: Final = "project_state"
"""The state once more, for the integrators of the device's project; it is mirrored where ``STATE`` is."""

MARKS: Final = "project_marks:"
"""Begin of a fact, with the id of a project: how far its devices are marked (:mod:`gateway.store.project_mark_sql`)."""
_READ_PROJECTS: Final = f"""SELECT project_id FROM broker_accounts WHERE project_id IS NOT NULL AND revoked_at IS NULL
    UNION ALL SELECT substr(key, {len(MARKS) + 1}) FROM meta WHERE substr(key, 1, {len(MARKS)}) = '{MARKS}'"""  # noqa: S608 - constants
"""Projects with an integrator, and those whose devices are being marked."""

_IS_READ: Final = f"EXISTS ({_READ_PROJECTS}) AND d.project_id IN ({_READ_PROJECTS})"
"""The first condition holds for all devices or for none, so no device is looked at where there is no integrator."""


class MirrorRow(NamedTuple):
    """A row of a mirrored topic."""

    seq: int
    device_pk: int


class OutboxRow(NamedTuple):
    """A row of the outbox with the id of its device; times are milliseconds since the epoch.

    ``is_served`` is 1 if the broker of the row serves the device, 0 if another one is its home.
    """

    seq: int
    kind: str
    device_pk: int
    detail: str
    created_at: int
    not_before: int
    device_id: str
    deleted_at: int | None
    is_served: int


_IS_SERVED: Final = f"CASE WHEN {serves('d.pk', 'o.broker_pk')} THEN 1 ELSE 0 END"
OF_ROW: Final = columns(OutboxRow, "o", device_id="d.id", deleted_at="d.deleted_at", is_served=_IS_SERVED)
_ROWS: Final = f"SELECT {OF_ROW} FROM outbox o JOIN devices d ON d.pk = o.device_pk"  # noqa: S608 - our own columns


_INTO: Final = "INTO outbox (kind, device_pk, detail, created_at, not_before, broker_pk)"
_REPLACING: Final = {
    "sqlite": f"INSERT OR REPLACE {_INTO} {{}}",
    "postgresql": f"""INSERT {_INTO} {{}} ON CONFLICT (device_pk, kind, detail, broker_pk) DO UPDATE SET
        seq = nextval('outbox_seq'), created_at = excluded.created_at, not_before = excluded.not_before""",
}
"""Inserts the rows of a query, or gives those that exist a new number."""
_MIRRORED: Final = "CAST(? AS TEXT), {}, CAST(? AS TEXT), CAST(? AS BIGINT), 0, b.pk"
_AT_BROKERS: Final = "JOIN (SELECT b.pk {}) AS b ON TRUE WHERE {}"


def _replacing(tx: Tx, rows: str, broker: int | None, device: str) -> str:
    """Return the statement for these rows, at every broker that serves ``device`` (an expression), or at one.

    ``rows`` is formatted with the names of brokers and with the condition on them.
    """
    where = serves(device, "b.pk") if broker is None else f"b.pk = {broker}"
    return _REPLACING[tx.dialect.name].format(rows.format(FOLLOWED, where))


def mark_command(tx: Tx, device_pk: int, command_type: str, *, not_before: int = 0, broker: int | None = None) -> None:
    """Mark the retained topic of this command type as out of step; it may wait until ``not_before``.

    Here and below: ``broker`` is the one where it is, whether it serves the device or not; None: all that do.
    """
    _mark(tx, COMMAND, device_pk, command_type, not_before, broker)


def mark_topic(tx: Tx, device_pk: int, leaf: str, *, broker: int | None = None) -> None:
    """Mark another retained topic of the device as out of step: ``devices/{id}/{leaf}``."""
    _mark(tx, TOPIC, device_pk, leaf, broker=broker)


def mark_mirror(tx: Tx, device_pk: int, *details: str) -> None:
    """Mark those of ``details`` that the rules have mirrored: the device's state has changed.

    This wakes no worker: they check once a second.
    """
    for detail in details:
        mark_all_mirrors(tx, [device_pk], detail)


def mark_all_mirrors(tx: Tx, device_pks: Iterable[int], detail: str, *, broker: int | None = None) -> None:
    """Do the same for many devices."""
    if not is_mirrored(tx.rules, detail):
        return
    pks = list(device_pks)
    if not pks:
        return
    mark_listed(tx, detail, pks, broker)
    if detail == STATE:
        changed = f"({tx.dialect.numbers}) AS changed JOIN devices d ON d.pk = changed.value"
        _mark_mirrors(tx, PROJECT_STATE, f"{changed} AND {_IS_READ}", [json.dumps(pks)], broker)


def mark_fleet(tx: Tx, detail: str) -> None:
    """Do the same for all devices that are not deleted, without reading them."""
    if not is_mirrored(tx.rules, detail):
        return
    living = "SELECT d.pk FROM devices d WHERE d.deleted_at IS NULL"
    _mark_mirrors(tx, detail, f"({living}) AS d", [], None)
    if detail == STATE:
        _mark_mirrors(tx, PROJECT_STATE, f"({living} AND {_IS_READ}) AS d", [], None)


def mark_listed(tx: Tx, detail: str, device_pks: Sequence[int], broker: int | None) -> None:
    """Mark a mirrored topic of these devices, whatever the rules have mirrored."""
    listed = f"(SELECT value AS pk FROM ({tx.dialect.numbers}) AS listed) AS d"  # noqa: S608 - a constant
    _mark_mirrors(tx, detail, listed, [json.dumps(device_pks)], broker)


def _mark_mirrors(tx: Tx, detail: str, devices: str, values: Sequence[str], broker: int | None) -> None:
    rows = f"SELECT {_MIRRORED.format('d.pk')} FROM {devices} {_AT_BROKERS}"  # noqa: S608 - constants
    tx.run(_replacing(tx, rows, broker, "d.pk"), MIRROR, detail, tx.now, *values)


def is_mirrored(rules: Rules, detail: str) -> bool:
    """Return whether the settings have this retained topic mirrored."""
    return (STATE if detail == PROJECT_STATE else detail) in rules.mirrored


def newest(view: View) -> int:
    """Return the highest number in use. Later marks have higher ones."""
    seq: int | None = view.value("SELECT max(seq) FROM outbox")
    return seq or 0


def mirror_rows(view: View, detail: str, after: int, up_to: int, limit: int, *, broker: int = FIRST) -> list[MirrorRow]:
    """Return the oldest of these rows, after the one number and up to the other."""
    return view.records(
        MirrorRow,
        """SELECT seq, device_pk FROM outbox WHERE broker_pk = ? AND kind = ? AND not_before = 0 AND detail = ?
            AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?""",
        *(broker, MIRROR, detail, after, up_to, limit),
    )


def drop_mirror(tx: Tx, detail: str, *, broker: int = FIRST) -> None:
    """Drop the rows of a topic that the settings no longer have mirrored."""
    tx.run("DELETE FROM outbox WHERE broker_pk = ? AND kind = ? AND detail = ?", broker, MIRROR, detail)


def waits(view: View, device_pk: int, brokers: Collection[int] | None = None) -> bool:
    """Return whether anything that the device itself depends on is out of step at these brokers; None: at any."""
    rows = view.all("SELECT broker_pk FROM outbox WHERE device_pk = ? AND kind <> ?", device_pk, MIRROR)
    return any(brokers is None or row["broker_pk"] in brokers for row in rows)


def mark_credential(tx: Tx, device_pk: int, *, broker: int | None = None) -> None:
    """Mark that the device's access has changed."""
    _mark(tx, CREDENTIAL, device_pk, "", broker=broker)


def _mark(tx: Tx, kind: str, device_pk: int, detail: str, not_before: int = 0, broker: int | None = None) -> None:
    tx.outbox_kinds.add(kind)
    known = """(SELECT o.not_before FROM outbox o
        WHERE o.kind = ?1 AND o.device_pk = ?2 AND o.detail = ?3 AND o.broker_pk = b.pk)"""
    turn = tx.dialect.least("CAST(?5 AS BIGINT)", f"coalesce({known}, ?5)")
    # The row gets a new number. A publisher that is at work on the old one then leaves the new one in place. A
    # row that was already due does not become due later by a second mark.
    rows = (
        f"SELECT CAST(?1 AS TEXT), CAST(?2 AS BIGINT), CAST(?3 AS TEXT), CAST(?4 AS BIGINT), {turn}, b.pk {{}} AND {{}}"
    )
    tx.run(_replacing(tx, rows, broker, "?2"), kind, device_pk, detail, tx.now, not_before)


def mark_everything(tx: Tx, device_pks: Sequence[int], brokers: Iterable[int]) -> None:
    """Mark all that these brokers hold of these devices, since they begin or cease to serve them.

    That is access, open commands, statuses and what is mirrored. A command keeps its turn.
    """
    listed = json.dumps(list(device_pks))
    plain = f"SELECT {_MIRRORED.format('d.value')} FROM ({tx.dialect.numbers}) AS d {_AT_BROKERS}"  # noqa: S608 - constants
    turn = (
        "(SELECT max(o.not_before) FROM outbox o WHERE o.device_pk = c.device_pk AND o.kind = ?1 AND o.detail = c.type)"
    )
    commands = f"""SELECT CAST(?1 AS TEXT), c.device_pk, c.type, CAST(?2 AS BIGINT), coalesce({turn}, 0), b.pk
        FROM ({tx.dialect.numbers.replace("?", "?3")}) AS d JOIN commands c ON c.device_pk = d.value
        AND c.status IN ('pending', 'delivered') {_AT_BROKERS}"""  # noqa: S608 - constants
    for broker in brokers:
        tx.run(_replacing(tx, commands, broker, ""), COMMAND, tx.now, listed)
        tx.run(_replacing(tx, plain, broker, ""), CREDENTIAL, "", tx.now, listed)
        tx.run(_replacing(tx, plain, broker, ""), TOPIC, STATUS, tx.now, listed)
        for detail in (STATE, DISCOVERY):
            mark_all_mirrors(tx, device_pks, detail, broker=broker)
    tx.outbox_kinds |= {COMMAND, CREDENTIAL, TOPIC}


def next_turn(tx: Tx) -> int:
    """Return when the next command of a bulk reset may go out: one step after the last that waits, or after now.

    Any earlier one has gone out by now or is one of those, so the pace holds over concurrent calls, at each broker.
    """
    latest: int | None = tx.value(
        """SELECT max((SELECT max(o.not_before) FROM outbox o WHERE o.broker_pk = b.pk AND o.kind = ?))
            FROM brokers b""",
        COMMAND,
    )
    return max(tx.now, latest or 0) + step_ms(tx.rules)


def step_ms(rules: Rules) -> int:
    """Return the distance between turns of a bulk reset. The first waiting one is never further ahead than that."""
    return math.ceil(SECOND_MS / rules.bulk_reset_per_second)


def paced(view: View, broker: int = FIRST) -> bool:
    """Return whether commands wait for their turn at this broker, or have missed it."""
    waiting = "SELECT 1 FROM outbox WHERE broker_pk = ? AND kind = ? AND not_before > 0 LIMIT 1"
    return view.one(waiting, broker, COMMAND) is not None


def resume_pace(tx: Tx, broker: int = FIRST) -> None:
    """Give the first of the commands that missed their turns a turn now; the others follow at the old distance.

    While nothing could be published, their turns went by. Without this they would all go out at once. And where the
    clock was set back, the first would wait for longer than a step.
    """
    paced = "broker_pk = ? AND kind = ? AND not_before > 0"
    first: int | None = tx.value(f"SELECT min(not_before) FROM outbox WHERE {paced}", broker, COMMAND)  # noqa: S608
    if first is not None:
        later = min(max(first, tx.now), tx.now + step_ms(tx.rules)) - first
        tx.run(f"UPDATE outbox SET not_before = not_before + ? WHERE {paced}", later, broker, COMMAND)  # noqa: S608


def next_due(view: View, broker: int = FIRST) -> int | None:
    """Return when the next row of a retained topic has its turn at this broker (0: at once), or None."""
    first = "(SELECT not_before FROM outbox WHERE broker_pk = ?1 AND kind = '{}' ORDER BY not_before LIMIT 1)"
    turns = view.one(f"SELECT {', '.join(first.format(kind) for kind in (COMMAND, TOPIC))}", broker)
    return min((turn for turn in turns or () if turn is not None), default=None)


def pending(view: View, kind: str, limit: int, *, after: int = 0, broker: int = FIRST) -> list[OutboxRow]:
    """Return the oldest rows of this kind after this number, at this broker."""
    statement = f"{_ROWS} WHERE o.broker_pk = ? AND o.kind = ? AND o.seq > ? ORDER BY o.seq LIMIT ?"
    return view.records(OutboxRow, statement, broker, kind, after, limit)


def done(tx: Tx, seqs: list[int]) -> None:
    """Drop rows that were handled. One that was marked again meanwhile has another number and stays."""
    tx.run_many("DELETE FROM outbox WHERE seq = ?", [(seq,) for seq in seqs])


def has(view: View, kind: str, device_pk: int, detail: str = "", *, brokers: Collection[int] | None = None) -> bool:
    """Return whether this is out of step at these brokers; None: at any."""
    marked = "SELECT broker_pk FROM outbox WHERE kind = ? AND device_pk = ? AND detail = ?"
    return any(brokers is None or row["broker_pk"] in brokers for row in view.all(marked, kind, device_pk, detail))


def turns(view: View, now: int, broker: int = FIRST) -> set[tuple[int, str]]:
    """Return device and type of each command whose turn at this broker is still to come."""
    rows = view.all(
        "SELECT device_pk, detail FROM outbox WHERE broker_pk = ? AND kind = ? AND not_before > ?",
        *(broker, COMMAND, now),
    )
    return {(row["device_pk"], row["detail"]) for row in rows}


def marked_commands(
    view: View, device_pks: Sequence[int], broker: int = FIRST, *, after: int = -1
) -> set[tuple[int, str]]:
    """Return device and type of those commands of these devices that wait for this broker with a turn ``after`` then.

    By default these are all that wait.
    """
    rows = view.all(
        f"""SELECT device_pk, detail FROM outbox WHERE broker_pk = ? AND kind = ? AND not_before > ?
            AND device_pk IN ({view.dialect.numbers})""",  # noqa: S608 - a constant
        *(broker, COMMAND, after, json.dumps(list(device_pks))),
    )
    return {(row["device_pk"], row["detail"]) for row in rows}


_LEFT_OUT: Final = "broker_pk IN (SELECT pk FROM brokers WHERE left_out_at IS NOT NULL)"


def has_left_out(view: View) -> bool:
    """Return whether there are rows of brokers that are left out."""
    return view.one(f"SELECT 1 FROM outbox WHERE {_LEFT_OUT} LIMIT 1") is not None  # noqa: S608 - constants


def drop_left_out(tx: Tx, limit: int) -> list[OutboxRow]:
    """Drop up to so many rows of brokers that are left out; return them."""
    rows = tx.records(OutboxRow, f"{_ROWS} WHERE o.{_LEFT_OUT} LIMIT ?", limit)
    done(tx, [row.seq for row in rows])
    return rows
