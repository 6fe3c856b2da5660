"""SQL of what the publisher does next: rows of the outbox, with all that their topics are made of, by one statement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.store.broker_sql import FIRST
from gateway.store.command_sql import OPEN, CommandRecord
from gateway.store.outbox_sql import COMMAND, OF_ROW, TOPIC, OutboxRow
from gateway.store.records import columns

if TYPE_CHECKING:
    from gateway.store.transaction import View


class DueTopic(NamedTuple):
    """A row of the outbox, and the state of its device at that moment.

    ``command`` is the open command of a topic of commands. ``opens_something``: the device has a good token.
    ``is_at_broker``: its last message came over MQTT, at this broker, and was not an offline message.
    """

    row: OutboxRow
    command: CommandRecord | None
    opens_something: bool
    is_at_broker: bool


_OF_KIND: Final = """SELECT * FROM (SELECT * FROM outbox WHERE broker_pk = ?1 AND kind = '{}' AND not_before <= ?2
    ORDER BY not_before, seq LIMIT ?3) AS {}"""
_BOTH: Final = " UNION ALL ".join((_OF_KIND.format(COMMAND, "commands_due"), _OF_KIND.format(TOPIC, "topics_due")))
_DUE: Final = f"""SELECT {OF_ROW}, {columns(CommandRecord, "c", device_id="d.id")},
        EXISTS (SELECT 1 FROM tokens t WHERE t.device_pk = d.pk AND t.state <> 'revoked'), h.at_broker
    FROM ({_BOTH}) AS o JOIN devices d ON d.pk = o.device_pk
    LEFT JOIN commands c ON o.kind = '{COMMAND}' AND c.device_pk = o.device_pk AND c.type = o.detail AND {OPEN}
    LEFT JOIN health h ON h.device_pk = o.device_pk AND h.broker_pk = o.broker_pk"""  # noqa: S608 - constants
_FIELDS: Final = len(OutboxRow._fields)


def due(view: View, now: int, limit: int, broker: int = FIRST) -> list[DueTopic]:
    """Return the retained topics whose turn has come at this broker; those of commands first."""
    found = [_topic(list(row)) for row in view.all(_DUE, broker, now, limit)]
    return sorted(found, key=lambda topic: (topic.row.kind != COMMAND, topic.row.not_before, topic.row.seq))[:limit]


def _topic(values: list[object]) -> DueTopic:
    row, command, (opens_something, is_at_broker) = values[:_FIELDS], values[_FIELDS:-2], values[-2:]
    found = None if command[0] is None else CommandRecord._make(command)
    return DueTopic(OutboxRow._make(row), found, bool(opens_something), bool(is_at_broker))
