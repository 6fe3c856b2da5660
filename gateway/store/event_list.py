"""Lists of the audit trail: of a device, of a project, of an actor; as pages, as a stream's tail and as CSV.

An index finds the events of a type, of a device or of an actor in their order. With two of these filters the narrower
index is used, and the others look at what it finds.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gateway.core import ids
from gateway.core.clock import from_datetime, to_rfc3339
from gateway.models.events import Actor
from gateway.models.fields import MAX_NUMBER
from gateway.store.event_sql import EVENTS, EventRecord

if TYPE_CHECKING:
    from gateway.models.events import ListEvents, ListProjectEvents, StreamEvents
    from gateway.store.transaction import View

MOST_ACTORS: Final = 500
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

    def add(self, clause: str, value: object) -> None:
        self.clauses.append(clause)
        self.values.append(value)

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

    def read(self, view: View, before: int | None, limit: int) -> list[EventRecord]:
        """Return the newest of them before this ``seq``, newest first."""
        self.add("seq < ?", MAX_NUMBER if before is None else before)
        return view.records(
            EventRecord,
            f"{EVENTS} WHERE {' AND '.join(self.clauses)} ORDER BY seq DESC LIMIT ?",
            *self.values,
            limit,
        )


def page(view: View, device_pk: int, query: ListEvents) -> list[EventRecord]:
    """Return a page after ``query.cursor``, newest first, and one event more than ``query.limit`` if there are more."""
    wanted = _Filter(view, "device_pk = ?", device_pk)
    wanted.by(query.actor, is_indexed=False)
    wanted.within(query)
    before = None if query.cursor is None else seq_at(view, device_pk, query.cursor)
    return wanted.read(view, before, query.page_size + 1)


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
    """Return up to ``limit`` matching events before the ``seq`` ``before`` (None: the newest), newest first."""
    wanted = _matching(view, project_id, query)
    wanted.within(query)
    return wanted.read(view, before, limit)


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
