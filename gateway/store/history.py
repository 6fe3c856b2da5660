"""SQL of the history of heartbeats: written all the time, read now and then.

Each row names the device's heartbeat before it, and ``health`` the newest: a chain, newest first, as it is read. An
index by device would cost more than all else that is stored of a heartbeat: each entry goes to another page of it, and
each such page into the log. So a row here touches the end of the table, and the end of one index in the order of time.
``history_days`` says where in the chain a day begins, so that nobody has to walk from today to last month.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gateway import fleet_model, model
from gateway.clock import from_datetime, to_rfc3339
from gateway.store.devices import moment

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.store.database import Row, Tx, View

_DAY_MS: Final = 86_400_000
_INSERT: Final = """INSERT OR IGNORE INTO heartbeats (id, previous, device_pk, received_at, sent_at, battery_percent,
    storage_used_mb, storage_total_mb, signal_strength_dbm, firmware_version, device_state, pending_recordings,
    flags, radio) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_WALK: Final = """WITH RECURSIVE walk AS (
        SELECT * FROM heartbeats WHERE id = ?1 AND device_pk = ?2 AND received_at >= ?3
    UNION ALL
        SELECT b.* FROM walk w JOIN heartbeats b ON b.id = w.previous
        WHERE b.device_pk = ?2 AND b.id < w.id AND b.received_at >= ?3)
    SELECT * FROM walk WHERE received_at < ?4 LIMIT ?5"""


class Beat(NamedTuple):
    """A heartbeat, the device that sent it (as :func:`gateway.store.health.senders` reads it), and over which link."""

    device: Row
    heartbeat: model.Heartbeat
    radio: model.Radio | None


class End(NamedTuple):
    """The newest heartbeat of a device's chain, and the day (since the epoch, UTC) on which it came."""

    id: int | None
    day: int | None


class Appended(NamedTuple):
    """For each heartbeat whether it was new, and the end of each chain that has grown, by device."""

    new: list[bool]
    ends: dict[int, End]


def append(tx: Tx, beats: Sequence[Beat]) -> Appended:
    """Add heartbeats in this order; one with a device and ``sent_at`` that are there already is the very same one."""
    tx.run("SAVEPOINT history")
    new = [True] * len(beats)
    ends = _insert(tx, beats)
    if ends is None:  # rare, so only now it is asked which were there already
        tx.run("ROLLBACK TO history")
        new = _unknown(tx, beats)
        ends = _insert(tx, [beat for beat, is_new in zip(beats, new, strict=True) if is_new])
    tx.run("RELEASE history")
    return Appended(new, ends or {})


def _insert(tx: Tx, beats: Sequence[Beat]) -> dict[int, End] | None:
    """The ends of the chains; ``None`` when some were there already."""
    chains: dict[int, End] = {}
    days: list[tuple[int, int, int]] = []
    today, first = tx.now // _DAY_MS, (tx.value("SELECT max(id) FROM heartbeats") or 0) + 1
    rows = []
    for number, beat in enumerate(beats, first):
        device = beat.device
        pk = device["pk"]
        end = chains.get(pk) or End(device["history_id"], device["history_day"])
        if end.day != today:
            days.append((pk, today, number))
        chains[pk] = End(number, today)
        rows.append((number, end.id, pk, tx.now, *_said(beat)))
    if tx.connection.executemany(_INSERT, rows).rowcount != len(rows):
        return None
    tx.connection.executemany("INSERT OR IGNORE INTO history_days (device_pk, day, first_id) VALUES (?, ?, ?)", days)
    return chains


def _said(beat: Beat) -> tuple[Any, ...]:
    heartbeat = beat.heartbeat
    return (
        _sent_at(heartbeat),
        heartbeat.battery_percent,
        heartbeat.storage_used_mb,
        heartbeat.storage_total_mb,
        heartbeat.signal_strength_dbm,
        heartbeat.firmware_version,
        as_text(heartbeat.device_state),
        heartbeat.pending_recordings,
        heartbeat.flags,
        as_text(beat.radio),
    )


def _sent_at(heartbeat: model.Heartbeat) -> int | None:
    return None if heartbeat.sent_at is None else from_datetime(heartbeat.sent_at)


def as_text(word: str | None) -> str | None:
    """A member of an enum as the string that it is: sqlite3 looks for an adapter for everything else, each time."""
    return None if word is None else str(word)


def _unknown(tx: Tx, beats: Iterable[Beat]) -> list[bool]:
    """For each whether it is neither stored nor among those before it."""
    seen: set[tuple[int, int]] = set()
    new = []
    for beat in beats:
        sent_at = _sent_at(beat.heartbeat)
        this = (-1 if sent_at is None else sent_at, beat.device["pk"])
        known = sent_at is not None and (
            this in seen or tx.one("SELECT 1 FROM heartbeats WHERE sent_at = ? AND device_pk = ?", *this) is not None
        )
        seen.add(this)
        new.append(not known)
    return new


class Window(NamedTuple):
    """Heartbeats received from ``since`` on and before ``until`` (milliseconds since the epoch)."""

    since: int
    until: int


def page(view: View, device_pk: int, window: Window, *, after: int | None, limit: int, every: int | None) -> list[Row]:
    """Newest first, from the one after the row ``after`` on.

    With ``every`` only the newest of each so many milliseconds of the clock.
    """
    start = _start(view, device_pk, window.until) if after is None else _previous(view, device_pk, after)
    if every is None:
        return _walk(view, device_pk, start, window, limit)
    if after is not None:
        window = _before_step(view, after, window, every)
    rows: list[Row] = []
    while len(rows) < limit and (found := _walk(view, device_pk, start, window, 1)):
        rows += found
        window = _before_step(view, found[0]["id"], window, every)
        start = _earlier(found[0]["previous"], _start(view, device_pk, window.until))
    return rows


def _walk(view: View, device_pk: int, start: int | None, window: Window, limit: int) -> list[Row]:
    return view.all(_WALK, start, device_pk, window.since, window.until, limit)


def _before_step(view: View, after: int, window: Window, every: int) -> Window:
    """What comes before the step of the clock in which this row was received."""
    at: int | None = view.value("SELECT received_at FROM heartbeats WHERE id = ?", after)
    return window if at is None else Window(window.since, min(window.until, at - at % every))


def _earlier(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else min(one, other)


def _start(view: View, device_pk: int, until: int) -> int | None:
    """Where to begin to look for what was received before then: the last of that day, or the newest of all."""
    later: int | None = view.value(
        "SELECT first_id FROM history_days WHERE device_pk = ? AND day > ? ORDER BY day LIMIT 1",
        device_pk,
        until // _DAY_MS,
    )
    if later is not None:
        return _previous(view, device_pk, later)
    newest: int | None = view.value("SELECT history_id FROM health WHERE device_pk = ?", device_pk)
    return newest


def _previous(view: View, device_pk: int, heartbeat_id: int) -> int | None:
    found: int | None = view.value(
        "SELECT previous FROM heartbeats WHERE id = ? AND device_pk = ? AND previous < id", heartbeat_id, device_pk
    )
    return found


def to_record(row: Row) -> fleet_model.HeartbeatRecord:
    """A row of the history as the API shows it."""
    told = {name: row[name] for name in fleet_model.HeartbeatRecord.model_fields if name in row.keys()}  # noqa: SIM118 - a sqlite3.Row iterates over its values
    times = {"received_at": to_rfc3339(row["received_at"]), "sent_at": moment(row["sent_at"])}
    radio = None if row["radio"] is None else [row["radio"]]
    return fleet_model.HeartbeatRecord.model_validate({**told, **times, "connection_type": radio})


def prune(tx: Tx, before: int, limit: int) -> int:
    """Drop those of the ``limit`` oldest heartbeats that were received before then; how many went.

    Only the oldest are looked at: when nothing is due that costs as little as when something is, however long the
    table.
    """
    due = "SELECT id FROM (SELECT id, received_at FROM heartbeats ORDER BY id LIMIT ?) WHERE received_at < ?"
    tx.run(
        f"""DELETE FROM history_days WHERE (device_pk, day, first_id) IN
            (SELECT device_pk, received_at / {_DAY_MS}, id FROM heartbeats WHERE id IN ({due}))""",  # noqa: S608 - ours
        limit,
        before,
    )
    return tx.run(f"DELETE FROM heartbeats WHERE id IN ({due})", limit, before).rowcount  # noqa: S608 - the same
