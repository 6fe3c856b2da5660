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
from gateway.store.device_sql import moment
from gateway.store.row_statement import INTEGER, NUMBER, TEXT, Insertion

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.store.device_cache import CachedDevice
    from gateway.store.transaction import Tx, View

_SAMPLES: Final = 256
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
_BLOCK: Final = 1_000
"""Numbers that a batch draws at once beside others, whether it uses them or not."""
_SEQUENCE: Final = "pg_get_serial_sequence('heartbeats', 'id')"
_NEXT_BLOCK: Final = f"""WITH drawn AS MATERIALIZED (SELECT nextval({_SEQUENCE}) * {_BLOCK} AS first)
    SELECT CASE WHEN first > ({_LAST_ID}) THEN first END FROM drawn"""  # noqa: S608 - constants
_SKIP_BLOCKS: Final = f"""SELECT count(nextval({_SEQUENCE})) FROM generate_series(1,
    least(1000000, ({_LAST_ID}) / {_BLOCK} - nextval({_SEQUENCE})))"""  # noqa: S608 - constants
_WALK: Final = """WITH RECURSIVE walk AS (
        SELECT * FROM heartbeats WHERE id = ?1 AND device_pk = ?2 AND received_at >= ?3
    UNION ALL
        SELECT b.* FROM walk w JOIN heartbeats b ON b.id = w.previous
        WHERE b.device_pk = ?2 AND b.id < w.id AND b.received_at >= ?3)
    SELECT * FROM walk WHERE received_at < ?4 LIMIT ?5"""
_RECEIVED: Final = "(SELECT received_at FROM heartbeats WHERE id >= {} ORDER BY id LIMIT 1)"
"""When the first heartbeat from a row number on was received."""
_SAMPLE: Final = f"""WITH RECURSIVE samples (sample) AS (
        SELECT CAST(?1 AS BIGINT) UNION ALL SELECT sample + ?2 FROM samples WHERE sample + ?2 <= ?3)
    SELECT min(sample) FROM samples WHERE {_RECEIVED.format("sample")} < ?4"""  # noqa: S608 - a constant
"""The first sample that was received before an instant."""
_HALF: Final = "(not_due + due) / 2"
_IS_DUE: Final = f"{_RECEIVED.format(_HALF)} < ?3"
_SEARCH: Final = f"""WITH RECURSIVE halved (not_due, due) AS (
        SELECT CAST(?1 AS BIGINT), CAST(?2 AS BIGINT) UNION ALL
        SELECT CASE WHEN {_IS_DUE} THEN not_due ELSE {_HALF} END, CASE WHEN {_IS_DUE} THEN {_HALF} ELSE due END
        FROM halved WHERE due - not_due > 1)
    SELECT min(due) FROM halved"""  # noqa: S608 - a constant
"""The first due row number after one that is not due: their distance is halved until they are neighbours."""


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
    if shared and len(beats) > _BLOCK:
        raise ValueError(f"{len(beats)} heartbeats are more than {_BLOCK}")
    first = _first_number if shared else _next_number
    if beats and not _insert(tx, beats, first(tx)):  # rare, so only now the known ones are looked up
        beats = _unknown(tx, beats)
        if not _insert(tx, beats, first(tx)):
            raise RuntimeError("a heartbeat that is new was not stored")  # rather nothing than a chain with a gap
    return beats


def _next_number(view: View) -> int:
    """Return the number after the last one, for a write that has the registry for itself."""
    return int(view.value(_LAST_ID)) + 1


def _first_number(view: View) -> int:
    """Return the first number of a block that no other transaction uses (PostgreSQL).

    The caller has locked the rows of the devices. So the numbers of a device are in the order of its chain: a block
    that is drawn later is higher, and higher than all rows that were committed before. A write that had the registry
    for itself may have used the next blocks. Then these are skipped.
    """
    while (first := view.value(_NEXT_BLOCK)) is None:
        view.value(_SKIP_BLOCKS)
    return int(first)


def _insert(tx: Tx, beats: Sequence[Beat], first: int) -> bool:
    """Return whether all were new. Otherwise none is stored, and the chains are unchanged."""
    now, today = tx.now, tx.now // DAY_MS
    rows, days, first_today = [], [], []
    for number, (device, heartbeat, radio) in enumerate(beats, first):
        said = heartbeat.__dict__
        sent_at = said["sent_at"]
        if device.history_day != today:
            days.append((device.pk, today, number))
            first_today.append((device, device.history_day))
            device.history_day = today
        sent = None if sent_at is None else from_datetime(sent_at)
        rows.append((number, device.history_id, device.pk, now, sent, *_said(said), radio))
        device.history_id = number
    if tx.run_rows(_HEARTBEATS, rows) != len(rows):
        tx.run("DELETE FROM heartbeats WHERE id BETWEEN ? AND ?", first, rows[-1][0])
        for beat, row in zip(reversed(beats), reversed(rows), strict=True):
            beat.device.history_id = row[_PREVIOUS]
        for device, day in first_today:
            device.history_day = day
        return False
    tx.run_rows(_DAYS, days)
    return True


def _unknown(tx: Tx, beats: Sequence[Beat]) -> list[Beat]:
    """Return those that are neither stored nor among those before them."""
    seen = _stored(tx, beats)
    new = []
    for beat in beats:
        this = _key(beat)
        if this not in seen:
            new.append(beat)
        if this is not None:
            seen.add(this)
    return new


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
    start = _start(view, device_pk, window.until) if after is None else _previous(view, device_pk, after)
    if every is None:
        return _walk(view, device_pk, start, window, limit)
    if after is not None:
        window = _before_step(view, after, window, every)
    rows: list[StoredHeartbeat] = []
    while len(rows) < limit and (found := _walk(view, device_pk, start, window, 1)):
        rows += found
        window = _before_step(view, found[0].id, window, every)
        start = _earlier(found[0].previous, _start(view, device_pk, window.until))
    return rows


def _walk(view: View, device_pk: int, start: int | None, window: Period, limit: int) -> list[StoredHeartbeat]:
    return view.records(StoredHeartbeat, _WALK, start, device_pk, window.since, window.until, limit)


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


class Due(NamedTuple):
    """The oldest heartbeats of the history: a query of their row numbers, and its values."""

    sql: str
    values: tuple[int, int, int]


def due(view: View, before: int, limit: int) -> Due | None:
    """Return at most ``limit`` heartbeats that were received before then, or None when nothing is due.

    Rows lie in the order of arrival, so the oldest are at the beginning. Whether anything is due costs a look there and
    :data:`_SAMPLES` more, however long the table. An index by time would be written at each heartbeat. The samples find
    what is due behind rows that a wrong clock dated ahead, once that part of the table is longer than the distance of
    two samples.
    """
    start = _first_due(view, before)
    if start is None:
        return None
    some = "SELECT id, received_at FROM heartbeats WHERE id >= ? ORDER BY id LIMIT ?"
    return Due(f"SELECT id FROM ({some}) AS oldest WHERE received_at < ?", (start, limit, before))  # noqa: S608 - a constant command


def delete(tx: Tx, due: Due) -> int:
    """Delete these heartbeats; return how many."""
    tx.run(
        f"""DELETE FROM history_days WHERE (device_pk, day, first_id) IN
            (SELECT device_pk, received_at / {DAY_MS}, id FROM heartbeats WHERE id IN ({due.sql}))""",  # noqa: S608 - a constant command
        *due.values,
    )
    return tx.run(f"DELETE FROM heartbeats WHERE id IN ({due.sql})", *due.values).rowcount  # noqa: S608 - the same


def prune(tx: Tx, before: int, limit: int) -> int:
    """Delete at most ``limit`` heartbeats that were received before then; return how many."""
    oldest = due(tx, before, limit)
    return 0 if oldest is None else delete(tx, oldest)


def _first_due(view: View, before: int) -> int | None:
    """Return the id where a run of heartbeats from before then begins, or None when no sample is in such a run.

    It takes three statements. A write asks this while it holds the registry's lock.
    """
    row = view.one("SELECT min(id) AS first, max(id) AS last FROM heartbeats")
    if row is None or row["first"] is None:
        return None
    first, last = row["first"], row["last"]
    step = max(1, (last - first) // _SAMPLES)
    due: int | None = view.value(_SAMPLE, first, step, last, before)
    if due is None:
        return None
    found: int = view.value(_SEARCH, max(first - 1, due - step), due, before)
    return found
