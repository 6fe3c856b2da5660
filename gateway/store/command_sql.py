"""SQL of commands."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gateway.core.clock import to_rfc3339
from gateway.core.command_types import CommandType
from gateway.models.commands import Command, CommandPayload, ListCommands
from gateway.models.states import CommandStatus
from gateway.store.device_sql import moment
from gateway.store.key_sql import EPOCH_BASE
from gateway.store.records import columns

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.store.dialect import SqlDialect
    from gateway.store.transaction import Tx, View

CLOCKS_DIFFER_MS: Final = 1_000
"""A clock that goes back by less than this was not set back."""

OPEN: Final = "c.status IN ('pending', 'delivered')"
"""The condition that the command ``c`` is open."""


class CommandRecord(NamedTuple):
    """A command, with the id of its device.

    ``type`` and ``status`` are values of ``CommandType`` and ``CommandStatus``. ``params``, ``result`` and ``error``
    are JSON. ``seq`` is ``None`` for a command of a version that gave it none. One that does not expire has no
    ``expires_at`` and no ``ttl_ms``.
    """

    id: str
    device_pk: int
    type: str
    status: str
    params: str
    binding_generation: int
    seq: int | None
    grant_token: str
    created_at: int
    sent_at: int | None
    delivered_at: int | None
    executed_at: int | None
    final_at: int | None
    expires_at: int | None
    ttl_ms: int | None
    result: str | None
    error: str | None
    idempotency_key: str | None
    traceparent: str | None
    device_id: str


class ClosedTopic(NamedTuple):
    """The topic of a device's commands of one type, none of which is open; ``id`` and ``final_at`` are of the newest.

    ``final_at`` is milliseconds since the epoch.
    """

    final_at: int
    id: str
    device_pk: int
    device_id: str
    type: str


COMMANDS: Final = f"""SELECT {columns(CommandRecord, "c", device_id="d.id")}
    FROM commands c JOIN devices d ON d.pk = c.device_pk"""  # noqa: S608 - our own columns


def by_id(view: View, command_id: str) -> CommandRecord | None:
    """Return a command of any device."""
    return view.record(CommandRecord, f"{COMMANDS} WHERE c.id = ?", command_id)


def find(view: View, device_pk: int, command_id: str) -> CommandRecord | None:
    """Return a command of this device."""
    return view.record(CommandRecord, f"{COMMANDS} WHERE c.id = ? AND c.device_pk = ?", command_id, device_pk)


def by_idempotency_key(view: View, device_pk: int, key: str) -> CommandRecord | None:
    """Return the newest command of this device that was requested with this key."""
    return view.record(
        CommandRecord,
        f"{COMMANDS} WHERE c.device_pk = ? AND c.idempotency_key = ? ORDER BY c.id DESC LIMIT 1",
        device_pk,
        key,
    )


def open_of_type(view: View, device_pk: int, command_type: str) -> CommandRecord | None:
    """Return the open command of this type; there is at most one."""
    return view.record(
        CommandRecord, f"{COMMANDS} WHERE c.device_pk = ? AND c.type = ? AND {OPEN}", device_pk, command_type
    )


def open_of_device(view: View, device_pk: int) -> list[CommandRecord]:
    """Return the open commands of a device, oldest first."""
    return view.records(CommandRecord, f"{COMMANDS} WHERE c.device_pk = ? AND {OPEN} ORDER BY c.id", device_pk)


def open_after(view: View, device_pk: int, command_type: str, limit: int) -> list[CommandRecord]:
    """Return open commands, which a broker is to hold, by device and type: those after this device and type."""
    return view.records(
        CommandRecord,
        f"{COMMANDS} WHERE {OPEN} AND (c.device_pk, c.type) > (?, ?) ORDER BY c.device_pk, c.type LIMIT ?",
        *(device_pk, command_type, limit),
    )


def open_of_devices(view: View, device_pks: Sequence[int]) -> list[CommandRecord]:
    """Return the open commands of these devices."""
    return view.records(
        CommandRecord,
        f"{COMMANDS} WHERE {OPEN} AND c.device_pk IN ({view.dialect.numbers})",
        json.dumps(list(device_pks)),
    )


def closed_since(view: View, since: int, after: tuple[int, str], limit: int) -> list[ClosedTopic]:
    """Return topics whose last command became final since then, in the order of that.

    ``after`` is ``final_at`` and ``id`` of the last row of the page before. Other commands of a topic are looked up for
    each row. For ``NOT EXISTS`` PostgreSQL reads all commands.
    """
    return view.records(
        ClosedTopic,
        """SELECT c.final_at, c.id, c.device_pk, d.id AS device_id, c.type
            FROM commands c JOIN devices d ON d.pk = c.device_pk
            WHERE c.final_at >= ? AND (c.final_at > ? OR c.id > ?) AND
                (SELECT o.id FROM commands o WHERE o.device_pk = c.device_pk AND o.type = c.type
                AND o.status IN ('pending', 'delivered') LIMIT 1) IS NULL AND
                (SELECT n.id FROM commands n WHERE n.device_pk = c.device_pk AND n.type = c.type
                AND n.id > c.id AND n.final_at >= ? LIMIT 1) IS NULL
            ORDER BY c.final_at, c.id LIMIT ?""",
        *(after[0], *after, since, limit),
    )


def next_seq(view: View, device_pk: int, command_type: str) -> int:
    """Return the ``seq`` of the next command of this type to this device, above all before and above the epoch's base.

    Commands are never deleted, so the newest row tells. No restored registry issues a number again, since its epoch
    begins above all that the lost one can have issued.
    """
    return int(view.value(f"SELECT {next_seq_of(view.dialect, '?')}", device_pk, command_type, EPOCH_BASE))


def next_seq_of(dialect: SqlDialect, device: str) -> str:
    """Return the expression of this number for a device (an expression); its values: command type, ``EPOCH_BASE``."""
    own = f"coalesce((SELECT max(seq) FROM commands WHERE device_pk = {device} AND type = ? AND seq IS NOT NULL), 0)"  # noqa: S608 - our own expression
    base = "coalesce((SELECT CAST(value AS BIGINT) FROM meta WHERE key = ?), 0)"
    return f"{dialect.greatest(own, base)} + 1"


def highest_seq(view: View) -> int:
    """Return the highest ``seq`` of any command; 0 without one."""
    return int(view.value("SELECT max(seq) FROM commands") or 0)


def without_seq(view: View) -> list[CommandRecord]:
    """Return open commands of a version that gave them no ``seq``, oldest first."""
    return view.records(CommandRecord, f"{COMMANDS} WHERE {OPEN} AND c.seq IS NULL ORDER BY c.id")


def open_resets_after(view: View, device_pk: int, limit: int) -> list[CommandRecord]:
    """Return open factory resets of devices after this one, by their row numbers."""
    return view.records(
        CommandRecord,
        f"{COMMANDS} WHERE {OPEN} AND c.type = 'factory_reset' AND c.device_pk > ? ORDER BY c.device_pk LIMIT ?",
        *(device_pk, limit),
    )


def set_grant(tx: Tx, command_id: str, seq: int, grant: str) -> None:
    """Store a new grant with its ``seq``."""
    tx.run("UPDATE commands SET seq = ?, grant_token = ? WHERE id = ?", seq, grant, command_id)


def expired(view: View, now: int, limit: int) -> list[CommandRecord]:
    """Return open commands that have expired, at most so many, those first that expired first."""
    return view.records(
        CommandRecord,
        f"{COMMANDS} WHERE {OPEN} AND c.expires_at IS NOT NULL AND c.expires_at <= ? ORDER BY c.expires_at LIMIT ?",
        *(now, limit),
    )


def dated_ahead(view: View, now: int, limit: int) -> list[tuple[CommandRecord, int]]:
    """Return open commands that would stay open for longer than their ``ttl_ms``, with it: the clock was set back.

    They are at most so many.
    """
    commands = view.records(
        CommandRecord,
        f"{COMMANDS} WHERE {OPEN} AND c.expires_at IS NOT NULL AND c.expires_at - c.ttl_ms > ? LIMIT ?",
        *(now, limit),
    )
    return [(command, command.ttl_ms) for command in commands if command.ttl_ms is not None]


def expire_at(tx: Tx, command_id: str, expires_at: int, grant: str) -> None:
    """Set a new expiry, with the grant that holds it."""
    tx.run("UPDATE commands SET expires_at = ?, grant_token = ? WHERE id = ?", expires_at, grant, command_id)


def page(view: View, device_pk: int, query: ListCommands) -> list[CommandRecord]:
    """Return a page, newest first, and one row more than ``query.limit`` when there are more."""
    return view.records(
        CommandRecord,
        f"""{COMMANDS} WHERE c.device_pk = ? AND c.status = coalesce(?, c.status)
            AND c.type = coalesce(?, c.type) AND c.id < coalesce(?, '~') ORDER BY c.id DESC LIMIT ?""",
        device_pk,
        query.status,
        query.type,
        query.cursor,
        query.limit + 1,
    )


def insert(
    tx: Tx,
    device_pk: int,
    command: CommandPayload,
    seq: int,
    expires_at: int | None,
    idempotency_key: str | None,
    *,
    leaves_now: bool,
) -> None:
    """Insert a pending command.

    ``leaves_now`` counts it as sent, which spares the publisher a commit before it sends.
    """
    tx.run(
        """INSERT INTO commands (id, device_pk, type, status, params, binding_generation, seq, grant_token, created_at,
            expires_at, ttl_ms, idempotency_key, traceparent, sent_at)
            VALUES (?, ?, ?, 'pending', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        command.id,
        device_pk,
        command.type,
        json.dumps(command.params, ensure_ascii=False),
        command.binding_generation,
        seq,
        command.grant_token,
        tx.now,
        expires_at,
        None if expires_at is None else expires_at - tx.now,
        idempotency_key,
        tx.traceparent,
        tx.now if leaves_now else None,
    )


def set_sent(tx: Tx, command_ids: Iterable[str]) -> None:
    """Mark these as about to be sent, unless they were sent before."""
    tx.run_many(
        "UPDATE commands SET sent_at = ? WHERE id = ? AND sent_at IS NULL", [(tx.now, each) for each in command_ids]
    )


def set_delivered(tx: Tx, command_id: str) -> None:
    """Record that the device has the command."""
    tx.run("UPDATE commands SET status = 'delivered', delivered_at = ? WHERE id = ?", tx.now, command_id)


def set_final(
    tx: Tx,
    command_id: str,
    status: CommandStatus,
    *,
    result: dict[str, Any] | None = None,
    error: dict[str, Any] | None = None,
) -> None:
    """Make the command final."""
    tx.run(
        "UPDATE commands SET status = ?, final_at = ?, executed_at = ?, result = ?, error = ? WHERE id = ?",
        status,
        tx.now,
        tx.now if status is CommandStatus.EXECUTED else None,
        _text(result),
        _text(error),
        command_id,
    )


def set_result(tx: Tx, command_id: str, result: dict[str, Any]) -> None:
    """Record a late report of the device on a final command."""
    tx.run("UPDATE commands SET result = ? WHERE id = ?", _text(result), command_id)


def payload(command: CommandRecord) -> CommandPayload:
    """Return a command in the form that the device gets."""
    return CommandPayload(
        id=command.id,
        type=CommandType(command.type),
        params=json.loads(command.params),
        binding_generation=command.binding_generation,
        created_at=to_rfc3339(command.created_at),
        expires_at=moment(command.expires_at),
        grant_token=command.grant_token,
    )


def to_model(command: CommandRecord, device_id: str) -> Command:
    """Return a command as the API shows it."""
    return Command(
        **payload(command).model_dump(),
        device_id=device_id,
        status=CommandStatus(command.status),
        result=None if command.result is None else json.loads(command.result),
        error=None if command.error is None else json.loads(command.error),
        delivered_at=moment(command.delivered_at),
        executed_at=moment(command.executed_at),
    )


def _text(document: dict[str, Any] | None) -> str | None:
    return None if document is None else json.dumps(document, ensure_ascii=False)
