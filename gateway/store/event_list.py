"""Lists of the audit trail: of a device, of a project, of an actor; as pages, as a stream's tail and as CSV.

An index finds the events of a type, of a device or of an actor in their order. With two of these filters the narrower
index is used, and the others look at what it finds. Another index gives the events of a period in
the order of their times. With other filters it is used where the period has few events.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gateway.core import ids
from gateway.core.clock import from_datetime, to_rfc3339
from gateway.models.events import Actor
from gateway.models.fields import MAX_NUMBER
from gateway.store import short_ids
from gateway.store.event_sql import EVENTS, EventRecord

if TYPE_CHECKING:
    from gateway.models.events import ListEvents, ListProjectEvents, StreamEvents
    from gateway.store.transaction import View

MOST_ACTORS: Final = 500
FEW: Final = 1_000
"""So many events of a period are looked at one by one."""
CSV_COLUMNS: Final = ("id", "created_at", "type", "device_id", "actor", "actor_name", "client_address", "facts")
"""The columns of a list as CSV. ``facts`` has what no other column has, as JSON."""
_OWN_COLUMN: Final = ("device_id", "actor", "actor_name", "client_address")


class ActorRecord(NamedTuple):
    """An actor, and its newest event: None at the end of the list. ``created_at`` is milliseconds since the epoch."""

    actor: str | None
    seq: int | None
    created_at: int | None
    data: str | None


_NEWEST: Final = "(SELECT e.{} FROM events e WHERE e.project_id = ?1 AND e.actor = k.actor ORDER BY e.seq DESC LIMIT 1)"
_ACTORS: Final = f"""WITH RECURSIVE known (actor, place) AS (
    SELECT (SELECT e.actor FROM events e WHERE e.project_id = ?1 AND e.actor > '' ORDER BY e.actor LIMIT 1), 1
    UNION ALL
    SELECT (SELECT e.actor FROM events e WHERE e.project_id = ?1 AND e.actor > k.actor ORDER BY e.actor LIMIT 1),
        k.place + 1
    FROM known k WHERE k.actor IS NOT NULL AND k.place < ?2)
    SELECT k.actor, {", ".join(f"{_NEWEST.format(each)} AS {each}" for each in ("seq", "created_at", "data"))}
    FROM known k ORDER BY 2 DESC"""  # noqa: S608 - our own columns
"""Each step enters an index. A join would let PostgreSQL read the whole table where it expects many actors."""


class _Filter:
    """Conditions that events must meet, and their values."""

    def __init__(self, view: View, clause: str, value: object) -> None:
        self._unindexed = view.dialect.unindexed
        self.clauses = [clause]
        self.values = [value]

    def add(self, clause: str, *values: object) -> None:
        self.clauses.append(clause)
        self.values += values

    def by(self, actor: str | None, *, is_indexed: bool) -> None:
        """Keep those of this actor. What a device did happened to that device, and is stored without an actor."""
        if actor is None:
            return
        if actor.startswith(ids.DEVICE):
            self.add("actor IS NULL AND device_pk = (SELECT pk FROM devices WHERE id = ?)", actor)
        else:
            self.add(f"{'actor' if is_indexed else self._unindexed('actor')} = ?", actor)

    def within(self, query: ListEvents) -> None:
        """Keep those of the period."""
        for bound, instant in (">=", query.since), ("<", query.until):
            if instant is not None:
                self.add(f"created_at {bound} ?", from_datetime(instant))

    def before(self, seq: int | None) -> None:
        """Keep those before this ``seq``."""
        self.add("seq < ?", MAX_NUMBER if seq is None else seq)

    def read(self, view: View, limit: int, order: str = "seq DESC") -> list[EventRecord]:
        """Return the first of them in this order, which is the newest first."""
        return view.records(
            EventRecord,
            f"{EVENTS} WHERE {' AND '.join(self.clauses)} ORDER BY {order} LIMIT ?",
            *self.values,
            limit,
        )


def page(view: View, device_pk: int, query: ListEvents) -> list[EventRecord]:
    """Return a page after ``query.cursor``, newest first, and one event more than ``query.limit`` if there are more."""
    wanted = _Filter(view, "device_pk = ?", device_pk)
    wanted.by(query.actor, is_indexed=False)
    wanted.within(query)
    wanted.before(None if query.cursor is None else seq_at(view, device_pk, query.cursor))
    return wanted.read(view, query.page_size + 1)


def seq_at(view: View, device_pk: int, event_id: str) -> int | None:
    """Return the place of this event of the device in the order of the commits; None when it has no such event."""
    seq: int | None = view.value("SELECT seq FROM events WHERE id = ? AND device_pk = ?", event_id, device_pk)
    return seq


def seq_of(view: View, project_id: str, event_id: str) -> int | None:
    """Return the place of this event of the project in the order of the commits; None when it has no such event."""
    seq: int | None = view.value("SELECT seq FROM events WHERE id = ? AND project_id = ?", event_id, project_id)
    return seq


def page_of_project(
    view: View, project_id: str, query: ListProjectEvents, before: int | None, limit: int
) -> list[EventRecord]:
    """Return up to ``limit`` matching events before the one with the ``seq`` ``before`` (None: the newest).

    They are in the order of the commits, newest first. A period without other filters is in the order of the times.
    """
    has_period = query.since is not None or query.until is not None
    if has_period and query.type is None and query.actor is None and query.device_id is None:
        return _page_of_period(view, project_id, query, before, limit)
    few = _few_of_period(view, project_id, query) if has_period and query.device_id is None else None
    if few is not None:
        return _among(view, project_id, query, [seq for seq in few if before is None or seq < before]).read(view, limit)
    wanted = _matching(view, project_id, query)
    wanted.within(query)
    wanted.before(before)
    return wanted.read(view, limit)


def _within_period(view: View, project_id: str, query: ListEvents) -> _Filter:
    """Return the filter for the events of the period, as their index has them."""
    wanted = _Filter(view, short_ids.like("project_id"), project_id)
    wanted.add(f"{view.dialect.unindexed('project_id')} = ?", project_id)
    wanted.within(query)
    return wanted


def _page_of_period(
    view: View, project_id: str, query: ListProjectEvents, before: int | None, limit: int
) -> list[EventRecord]:
    wanted = _within_period(view, project_id, query)
    if before is not None:
        instant = view.value("SELECT created_at FROM events WHERE seq = ?", before)
        if instant is None:
            return []  # it was pruned meanwhile, and so were those before it
        wanted.add("created_at <= ?", instant)
        wanted.add(f"(created_at < ? OR {view.dialect.unindexed('seq')} < ?)", instant, before)
    return wanted.read(view, limit, "created_at DESC, seq DESC")


def _few_of_period(view: View, project_id: str, query: ListProjectEvents) -> list[int] | None:
    """Return the events of the period by their ``seq``, or None when they are more than :data:`FEW`."""
    wanted = _within_period(view, project_id, query)
    rows = view.all(
        f"SELECT seq FROM events WHERE {' AND '.join(wanted.clauses)} ORDER BY created_at LIMIT ?",  # noqa: S608 - our own clauses
        *(*wanted.values, FEW + 1),
    )
    return [row[0] for row in rows] if len(rows) <= FEW else None


def _among(view: View, project_id: str, query: ListProjectEvents, seqs: list[int]) -> _Filter:
    """Return the filters for these events of the period."""
    unindexed = view.dialect.unindexed
    wanted = _Filter(view, f"seq IN ({view.dialect.numbers})", json.dumps(seqs))
    wanted.add(f"{unindexed('project_id')} = ?", project_id)
    wanted.by(query.actor, is_indexed=False)
    if query.type is not None:
        wanted.add(f"{unindexed('type')} = ?", query.type)
    return wanted


def looks_at_many(query: ListProjectEvents) -> bool:
    """Return whether this may have to look at many more events than it returns."""
    filters = sum(each is not None for each in (query.type, query.device_id, query.actor))
    return filters > 1 or query.since is not None or query.until is not None


def resume_after(view: View, project_id: str, last_event_id: str | None) -> int:
    """Return the ``seq`` after which to go on: that of the last event seen, or of the newest one without any.

    An event that was pruned is located by its time, which is in its id.
    """
    if last_event_id is None:
        newest: int | None = view.value("SELECT max(seq) FROM events WHERE project_id = ?", project_id)
        return newest or 0
    seq: int | None = view.value(
        f"SELECT seq FROM events WHERE id <= ? AND {view.dialect.unindexed('project_id')} = ? ORDER BY id DESC LIMIT 1",  # noqa: S608 - a constant
        last_event_id,
        project_id,
    )
    return seq or 0


def tail(view: View, project_id: str, query: StreamEvents, after: int, limit: int) -> tuple[list[EventRecord], int]:
    """Return up to ``limit`` matching events after ``after``, oldest first, and the ``seq`` read up to."""
    newest: int = view.value("SELECT coalesce(max(seq), 0) FROM events")
    wanted = _matching(view, project_id, query)
    wanted.add("seq > ?", after)
    events = view.records(
        EventRecord,
        f"{EVENTS} WHERE {' AND '.join(wanted.clauses)} ORDER BY seq LIMIT ?",
        *wanted.values,
        limit,
    )
    return events, events[-1].seq if len(events) == limit else max(after, newest)


def _matching(view: View, project_id: str, query: ListProjectEvents | StreamEvents) -> _Filter:
    """Return the filters but for the period. A device has few events, an actor fewer than a project has of a type."""
    is_of_device = query.device_id is not None or (query.actor or "").startswith(ids.DEVICE)
    unindexed = view.dialect.unindexed
    wanted = _Filter(view, f"{unindexed('project_id') if is_of_device else 'project_id'} = ?", project_id)
    if query.device_id is not None:
        wanted.add("device_pk = (SELECT pk FROM devices WHERE id = ?)", query.device_id)
    wanted.by(query.actor, is_indexed=not is_of_device)
    if query.type is not None:
        has_better = is_of_device or query.actor is not None
        wanted.add(f"{unindexed('type') if has_better else 'type'} = ?", query.type)
    return wanted


def actors(view: View, project_id: str) -> list[Actor]:
    """Return who has done something in this project, but for devices: the most recent first.

    The index is entered a few times for each actor, however many events there are. The first ``MOST_ACTORS`` are looked
    at.
    """
    rows = view.records(ActorRecord, _ACTORS, project_id, MOST_ACTORS)
    return [
        Actor(actor=actor, name=json.loads(data).get("actor_name"), last_event_at=to_rfc3339(created_at))
        for actor, _, created_at, data in rows
        if actor is not None and created_at is not None and data is not None
    ]


def cells(event: EventRecord) -> list[Any]:
    """Return an event as a row of ``CSV_COLUMNS``."""
    data: dict[str, Any] = json.loads(event.data)
    own = [data.pop(name, None) for name in _OWN_COLUMN]
    return [event.id, to_rfc3339(event.created_at), event.type, *own, json.dumps(data, ensure_ascii=False)]
