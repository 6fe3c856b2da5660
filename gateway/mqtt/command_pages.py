"""Pages of command topics for the comparison with the broker: what it is to hold, and where it may hold too much.

Each read and each write is short, however many commands are open. A page has at most PAGE rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from gateway.core.clock import DAY_MS
from gateway.core.command_types import CommandType
from gateway.core.topics import CommandTopic, Topics
from gateway.mqtt.publisher import payload
from gateway.mqtt.retained_scan import digest_of
from gateway.store import Tx, View, broker_sql, command_sql, device_sql, epoch_sql, home_sql, outbox_sql

PAGE: Final = 100
"""Rows that are read at a time: about two milliseconds."""
LATELY_MS: Final = 7 * DAY_MS

Place = tuple[int, str]
"""Row number of a device, and the type of a command."""


class OpenTopic(NamedTuple):
    """The topic of an open command, with the digest of its payload; None where another broker serves the device.

    ``sent_at``: when the command was sent first (milliseconds since the epoch), or None. ``is_marked``: the publisher
    has yet to publish it, or waits for its turn.
    """

    place: Place
    topic: str
    digest: bytes | None
    sent_at: int | None
    is_marked: bool


class UnseenTopics(NamedTuple):
    """Topics of a device where this broker is to hold no command, or may hold one that the registry does not know."""

    device_pk: int
    device_id: str
    types: tuple[str, ...]


Cursor = Any
Page = tuple[list[UnseenTopics], Cursor | None]
"""Topics, and where the next page begins; None after the last one."""


def open_topics(view: View, names: Topics, broker: int, after: Place) -> list[OpenTopic]:
    """Return the topics of open commands after this one."""
    rows = command_sql.open_after(view, *after, PAGE)
    pks = [row.device_pk for row in rows]
    elsewhere = served_elsewhere(view, pks, broker)
    marked = outbox_sql.marked_commands(view, pks, broker)
    return [
        OpenTopic(
            (row.device_pk, row.type),
            names.command(row.device_id, row.type),
            None if row.device_pk in elsewhere else digest_of(payload(row)),
            row.sent_at,
            (row.device_pk, row.type) in marked,
        )
        for row in rows
    ]


def served_elsewhere(view: View, device_pks: Sequence[int], broker: int) -> set[int]:
    """Return those of these devices that another broker serves."""
    return home_sql.elsewhere(view, device_pks, broker)


def differing(
    view: View, names: Topics, broker: int, devices: Mapping[str, int], found: Mapping[str, bytes]
) -> list[Place]:
    """Return where ``found`` differs from what the broker is to hold of these devices (row numbers by id)."""
    expected = _wanted(view, names, broker, list(devices.values()))
    parsed = {topic: names.parse(topic) for topic, held in found.items() if expected.get(topic) != digest_of(held)}
    return [
        (devices[place.device_id], place.type)
        for place in parsed.values()
        if isinstance(place, CommandTopic) and place.device_id in devices
    ]


def _wanted(view: View, names: Topics, broker: int, device_pks: Sequence[int]) -> dict[str, bytes]:
    elsewhere = served_elsewhere(view, device_pks, broker)
    rows = command_sql.open_of_devices(view, [pk for pk in device_pks if pk not in elsewhere])
    return {names.command(row.device_id, row.type): digest_of(payload(row)) for row in rows}


def places(view: View, names: Topics, held: Iterable[str]) -> dict[str, Place | None]:
    """Return for each topic its device and type, or None if it belongs to no device of this registry."""
    parsed = {topic: names.parse(topic) for topic in held}
    of_commands = {topic: place for topic, place in parsed.items() if isinstance(place, CommandTopic)}
    found = device_sql.any_by_ids(view, {place.device_id for place in of_commands.values()})
    pks = {device.id: device.pk for device in found}
    ours = {topic: place for topic, place in of_commands.items() if place.device_id in pks}
    return {topic: (pks[ours[topic].device_id], ours[topic].type) if topic in ours else None for topic in parsed}


# --- topics that no open command of this broker explains --------------------------------------------------------------


def unseen(view: View, broker: int, now: int) -> list[Callable[[View, Cursor | None], Page]]:
    """Return the reads, page by page, of all topics where this broker may hold what it does not show.

    These are topics of devices that another broker serves, and topics that were closed since a week before the last
    comparison. After a restore it is every topic: what a lost registry published is not known.
    """
    if not epoch_sql.is_announced(view, broker):
        return [_of_every_device]
    return [partial(_of_moved_devices, broker=broker), partial(_closed, since=lately(view, broker, now))]


def lately(view: View, broker: int, now: int) -> int:
    """Return a time (milliseconds since the epoch): a week before the last comparison with this broker."""
    return broker_sql.compared_at(view, broker, now) - LATELY_MS


def _of_every_device(view: View, after: Cursor | None) -> Page:
    rows = device_sql.names_after(view, after or 0, PAGE)
    return [UnseenTopics(row.pk, row.id, tuple(CommandType)) for row in rows], rows[-1].pk if rows else None


def _of_moved_devices(view: View, after: Cursor | None, *, broker: int) -> Page:
    device_pk, command_type = after or (0, "")
    rows = command_sql.open_after(view, device_pk, command_type, PAGE)
    elsewhere = served_elsewhere(view, [row.device_pk for row in rows], broker)
    found = [UnseenTopics(row.device_pk, row.device_id, (row.type,)) for row in rows if row.device_pk in elsewhere]
    return found, (rows[-1].device_pk, rows[-1].type) if rows else None


def _closed(view: View, after: Cursor | None, *, since: int) -> Page:
    rows = command_sql.closed_since(view, since, after or (since, ""), PAGE)
    found = [UnseenTopics(row.device_pk, row.device_id, (row.type,)) for row in rows]
    return found, (rows[-1].final_at, rows[-1].id) if rows else None


# --- marks ------------------------------------------------------------------------------------------------------------


def mark(tx: Tx, found: Collection[Place], broker: int) -> int:
    """Mark these topics at this broker; return how many. A bulk reset keeps its pace."""
    due = set(found) - outbox_sql.marked_commands(tx, [pk for pk, _ in found], broker, after=tx.now)
    for device_pk, command_type in sorted(due):
        outbox_sql.mark_command(tx, device_pk, command_type, broker=broker)
    return len(due)


def mark_statuses(tx: Tx, device_pks: Sequence[int], broker: int) -> None:
    """Mark the statuses of these devices, which are deleted."""
    for device_pk in device_pks:
        outbox_sql.mark_topic(tx, device_pk, outbox_sql.STATUS, broker=broker)


def chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Return these in pieces of at most ``size``."""
    return (items[begin : begin + size] for begin in range(0, len(items), size))
