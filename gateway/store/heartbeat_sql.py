"""SQL of the history of heartbeats: written all the time, read now and then.

Each row names the device's heartbeat before it, and ``health`` the newest: a chain, read from its newest end. An index
by device would cost more than all else that is stored of a heartbeat. Each of its entries goes to another page, and
each such page into the log. A row here touches the end of the table, and the end of one index in the order of time.
``history_days`` marks where in the chain a day begins, so that no query walks from today to last month.
"""

from __future__ import annotations

import json
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.core.clock import DAY_MS, from_datetime, to_rfc3339
from gateway.models.heartbeats import Heartbeat, HeartbeatRecord
from gateway.store import heartbeat_partition_sql
from gateway.store.device_sql import moment
from gateway.store.heartbeat_partition_sql import BLOCK, next_block, next_id
from gateway.store.row_statement import INTEGER, NUMBER, TEXT, Insertion

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.store.device_cache import CachedDevice
    from gateway.store.transaction import Tx, View

_SAID: Final = {
    "battery_percent": NUMBER,
    "storage_used_mb": NUMBER,
    "storage_total_mb": NUMBER,
    "signal_strength_dbm": NUMBER,
    "firmware_version": TEXT,
    "device_state": TEXT,
    "pending_recordings": INTEGER,
    "flags": INTEGER,
}
_KEYS: Final = ("id", "previous", "device_pk", "received_at", "sent_at")
_HEARTBEATS: Final = Insertion(
    "heartbeats", {**dict.fromkeys(_KEYS, INTEGER), **_SAID, "radio": TEXT}, conflict="ON CONFLICT DO NOTHING"
)
_DAYS: Final = Insertion(
    "history_days",
    {"device_pk": INTEGER, "day": INTEGER, "first_id": INTEGER},
    conflict="ON CONFLICT DO NOTHING",
)
_said: Final = itemgetter(*_SAID)
_PREVIOUS: Final = 1
"""Place in an inserted row of the previous end of the chain."""
_LAST_ID: Final = """SELECT coalesce((SELECT max(id) FROM heartbeats), (SELECT max(known) FROM
    (SELECT max(history_id) AS known FROM health UNION ALL SELECT max(last_heartbeat) FROM bindings) AS marks), 0)"""
"""Marks of bindings may name rows that were pruned, so an empty table must not begin with their numbers again."""
_WALK: Final = """WITH RECURSIVE walk AS (
        SELECT * FROM heartbeats WHERE id = ?1 AND device_pk = ?2
    UNION ALL
        SELECT b.* FROM walk w JOIN heartbeats b ON b.id = w.previous
        WHERE b.device_pk = w.device_pk AND b.id < w.id AND w.received_at >= ?3)
    SELECT * FROM walk WHERE received_at >= ?3 AND received_at < ?4 LIMIT ?5"""
"""It reads one row from before the period. A condition on ``b`` alone would have SQLite read the whole table first, for
a Bloom filter, once a program has run ANALYZE."""
_WALK_IN_PARTITION: Final = """WITH RECURSIVE walk AS (
        SELECT * FROM heartbeats WHERE id = ?1 AND device_pk = ?2 AND received_at >= ?3 AND id >= ?6 AND id < ?7
    UNION ALL
        SELECT b.* FROM walk w JOIN heartbeats b ON b.id = w.previous
        WHERE b.device_pk = ?2 AND b.id < w.id AND b.received_at >= ?3 AND b.id >= ?6 AND b.id < ?7)
    SELECT * FROM walk WHERE received_at < ?4 OR previous < ?6 LIMIT ?5"""
"""The last row may be later than the period. It tells where the walk goes on in an older partition."""


class StoredHeartbeat(NamedTuple):
    """A heartbeat of the history; times are milliseconds since the epoch.

    ``previous`` is the row number of the device's heartbeat before it.
    """

    id: int
    device_pk: int
    received_at: int
    sent_at: int | None
    battery_percent: int | float | None
    storage_used_mb: int | float | None
    storage_total_mb: int | float | None
    signal_strength_dbm: int | float | None
    firmware_version: str | None
    device_state: str | None
    pending_recordings: int | None
    flags: int | None
    radio: str | None
    previous: int | None


class Beat(NamedTuple):
    """A heartbeat, its device, and the link it came over (a :class:`gateway.models.states.Radio`)."""

    device: CachedDevice
    heartbeat: Heartbeat
    radio: str | None


def append(tx: Tx, beats: Sequence[Beat], *, shared: bool = False) -> Sequence[Beat]:
    """Add heartbeats in this order, each at the end of its device's chain; return those that were new.

    One with a known device and ``sent_at`` is the same one. ``shared``: other gateways do the same at this moment, for
    other devices.

    Raises:
        ValueError: these are more than a batch may store at once beside others.
    """
    if shared and len(beats) > BLOCK:
        raise ValueError(f"{len(beats)} heartbeats are more than {BLOCK}")
    if not beats or _insert(tx, beats, _first_number(tx, beats, shared=shared), suspects=not tx.dialect.partitioned):
        return beats
    for suspects in ([beat for beat in beats if _may_be_stored(beat)], beats):  # rare: only now they are looked up
        new = _unknown(beats, _stored(tx, suspects))
        if not new or _insert(tx, new, _first_number(tx, new, shared=shared), suspects=True):
            return new
    raise RuntimeError("a heartbeat that is new was not stored")  # rather nothing than a chain with a gap


def _insert(tx: Tx, beats: Sequence[Beat], first: int, *, suspects: bool) -> bool:
    """Return whether all were new. Otherwise none is stored, and the chains are unchanged.

    Without ``suspects`` none is stored either when one may be in another partition, where no index tells.
    """
    now, today, partitioned = tx.now, tx.now // DAY_MS, tx.dialect.partitioned
    rows, days, first_today, sent_before = [], [], [], []
    is_suspect = False
    for number, (device, heartbeat, radio) in enumerate(beats, first):
        said = heartbeat.__dict__
        sent_at = said["sent_at"]
        if device.history_day != today:
            days.append((device.pk, today, number))
            first_today.append((device, device.history_day))
            device.history_day = today
        sent = None if sent_at is None else from_datetime(sent_at)
        rows.append((number, device.history_id, device.pk, now, sent, *_said(said), radio))
        if partitioned and sent is not None:
            sent_before.append((device, device.history_sent_at))
            is_suspect = is_suspect or _is_suspect(device, sent)
            device.history_sent_at = max(sent, device.history_sent_at or sent)
        device.history_id = number
    if (is_suspect and not suspects) or tx.run_rows(_HEARTBEATS, rows) != len(rows):
        tx.run("DELETE FROM heartbeats WHERE id BETWEEN ? AND ?", first, rows[-1][0])
        for beat, row in zip(reversed(beats), reversed(rows), strict=True):
            beat.device.history_id = row[_PREVIOUS]
        for device, newest in reversed(sent_before):
            device.history_sent_at = newest
        for device, day in first_today:
            device.history_day = day
        return False
    tx.run_rows(_DAYS, days)
    return True


def _first_number(tx: Tx, beats: Sequence[Beat], *, shared: bool) -> int:
    """Return the first row number of so many."""
    if not tx.dialect.partitioned:
        return int(tx.value(_LAST_ID)) + 1
    known = max(beat.device.history_id or 0 for beat in beats)
    return next_block(tx, known) if shared else next_id(tx, known, len(beats))


def _unknown(beats: Sequence[Beat], seen: set[tuple[int, int]]) -> list[Beat]:
    """Return those that are neither among these nor among those before them."""
    new = []
    for beat in beats:
        this = _key(beat)
        if this not in seen:
            new.append(beat)
        if this is not None:
            seen.add(this)
    return new


def _may_be_stored(beat: Beat) -> bool:
    key = _key(beat)
    return key is not None and _is_suspect(beat.device, key[0])


def _is_suspect(device: CachedDevice, sent: int) -> bool:
    """Return whether a heartbeat may be stored: it was sent no later than the newest, or nothing is known of that."""
    newest = device.history_sent_at
    return device.history_id is not None and (newest is None or sent <= newest)


def _stored(view: View, beats: Iterable[Beat]) -> set[tuple[int, int]]:
    """Return the keys of those that are stored."""
    item = partial(view.dialect.member, "given.item")
    rows = view.all(
        f"""SELECT b.sent_at, b.device_pk FROM ({view.dialect.lists}) AS given JOIN heartbeats b
            ON b.sent_at = CAST({item(0)} AS BIGINT) AND b.device_pk = CAST({item(1)} AS BIGINT)""",  # noqa: S608 - our own expressions
        json.dumps([key for beat in beats if (key := _key(beat))]),
    )
    return {(sent_at, device_pk) for sent_at, device_pk in rows}


def _key(beat: Beat) -> tuple[int, int] | None:
    """Return what a repeated heartbeat has in common with the first one; None where nothing tells."""
    sent_at = beat.heartbeat.sent_at
    return None if sent_at is None else (from_datetime(sent_at), beat.device.pk)


class Period(NamedTuple):
    """Heartbeats received from ``since`` on and before ``until`` (milliseconds since the epoch)."""

    since: int
    until: int


def page(
    view: View, device_pk: int, window: Period, *, after: int | None, limit: int, every: int | None
) -> list[StoredHeartbeat]:
    """Return a page, newest first, after the row ``after``.

    With ``every`` it has only the newest of each so many milliseconds of the clock.
    """
    departed = heartbeat_partition_sql.departed(view)
    return page_above(view, device_pk, window, departed, after=after, limit=limit, every=every)


def page_above(
    view: View, device_pk: int, window: Period, departed: int, *, after: int | None, limit: int, every: int | None
) -> list[StoredHeartbeat]:
    """Return a page of rows above ``departed``, which may have left the history and be there still."""
    start = _start(view, device_pk, window.until) if after is None else _previous(view, device_pk, after)
    if every is None:
        return _walk(view, device_pk, start, window, departed, limit)
    if after is not None:
        window = _before_step(view, after, window, every)
    rows: list[StoredHeartbeat] = []
    while len(rows) < limit and (found := _walk(view, device_pk, start, window, departed, 1)):
        rows += found
        window = _before_step(view, found[0].id, window, every)
        start = _earlier(found[0].previous, _start(view, device_pk, window.until))
    return rows


def _walk(
    view: View, device_pk: int, start: int | None, window: Period, departed: int, limit: int
) -> list[StoredHeartbeat]:
    values = (device_pk, window.since, window.until)
    if not view.dialect.partitioned:
        return view.records(StoredHeartbeat, _WALK, start, *values, limit)
    rows: list[StoredHeartbeat] = []
    while start is not None and start > departed and len(rows) < limit:
        # one at a time: a plan for all of them takes longer than the walk
        partition = heartbeat_partition_sql.of(start)
        first = max(partition.first, departed + 1)
        found = view.records(
            StoredHeartbeat, _WALK_IN_PARTITION, start, *values, limit - len(rows), first, partition.end
        )
        rows += [row for row in found if row.received_at < window.until]
        start = found[-1].previous if found else None
        if start is not None and start >= first:
            break  # the period begins there
    return rows


def _before_step(view: View, after: int, window: Period, every: int) -> Period:
    """Return the window before the step of the clock in which this row was received."""
    at: int | None = view.value("SELECT received_at FROM heartbeats WHERE id = ?", after)
    return window if at is None else Period(window.since, min(window.until, at - at % every))


def _earlier(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else min(one, other)


def _start(view: View, device_pk: int, until: int) -> int | None:
    """Return where to begin for what was received before then: the last of that day, or the newest of all."""
    later: int | None = view.value(
        "SELECT first_id FROM history_days WHERE device_pk = ? AND day > ? ORDER BY day LIMIT 1",
        device_pk,
        until // DAY_MS,
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


def to_record(beat: StoredHeartbeat) -> HeartbeatRecord:
    """Return a heartbeat of the history as the API shows it."""
    reported = {name: value for name, value in beat._asdict().items() if name in HeartbeatRecord.model_fields}
    times = {"received_at": to_rfc3339(beat.received_at), "sent_at": moment(beat.sent_at)}
    radio = None if beat.radio is None else [beat.radio]
    return HeartbeatRecord.model_validate({**reported, **times, "connection_type": radio, "hour": None})
