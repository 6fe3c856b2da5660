"""Erasure of an end user: accepted in one transaction, done in many short ones (contract, section 7).

:func:`accept` takes the person's id out of their bindings, so that nothing new is found under it, and stores what is
still to do. Each other function does a part of that and may be repeated: after a kill all of them run again.
:func:`finish` deletes the record of the erasure itself. Then a random pseudonym is all that is left in events, and in
certificates a hash whose salt is gone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from gateway.core import ids
from gateway.core.command_types import CommandType
from gateway.errors import ConflictError
from gateway.models.events import EventType
from gateway.store import (
    Tx,
    View,
    binding_history_sql,
    binding_sql,
    command_sql,
    end_user_sql,
    erasure_sql,
    event_sql,
    health_sql,
    idempotency_sql,
    person_sql,
    thinned_sql,
)
from gateway.store.binding_sql import BindingRecord
from gateway.store.erasure_sql import ErasureRecord
from gateway.store.person_sql import NamingCommand

HEARTBEATS_AT_ONCE: Final = 1_000
"""Heartbeats that are deleted in one transaction."""
_ANSWERS_AT_ONCE: Final = 500
_DEVICES_NAMED: Final = 100
_PSEUDONYM_BYTES: Final = 16

COUNTS: Final = ("bindings", "heartbeats", "states", "events", "deliveries", "commands", "answers", "refused_messages")
"""What an erasure counts. ``states`` are devices whose newest reported values were the person's."""


@dataclass(frozen=True)
class Erased:
    """A finished erasure, or how far an open one is."""

    pseudonym: str
    counts: dict[str, int] = field(default_factory=dict)
    finished: bool = True


def accept(tx: Tx, project_id: str, end_user_id: str, actor: str) -> ErasureRecord:
    """Accept the erasure of an end user. One that is open already is extended to what happened since.

    Raises:
        ConflictError: ``device_bound``: a device is bound to the person.
    """
    _require_unbound(tx, project_id, end_user_id)
    erasure = erasure_sql.of_person(tx, project_id, end_user_id)
    newest = event_sql.newest(tx)
    if erasure is None:
        pseudonym = f"{ids.END_USER}erased{tx.entropy(_PSEUDONYM_BYTES).hex()}"
        erasure = ErasureRecord(pseudonym, project_id, end_user_id, actor, tx.now, newest, _counts({}))
        erasure_sql.insert(tx, erasure)
    erasure_sql.extend(tx, erasure.pseudonym, newest)
    end_user_sql.forget_salt(tx, project_id, end_user_id)
    renamed = erasure_sql.rename_bindings(tx, project_id, end_user_id, erasure.pseudonym)
    _count(tx, erasure, "bindings", renamed)
    return erasure._replace(last_event=newest)


def _require_unbound(view: View, project_id: str, end_user_id: str) -> None:
    bound = erasure_sql.bound_devices(view, project_id, end_user_id, _DEVICES_NAMED)
    if bound:
        raise ConflictError(
            "device_bound",
            f"{end_user_id} still has {len(bound)} device(s). Nothing was erased. Reset or unbind them first "
            "(POST /v1/devices/{id}/reset wipes the device, too), then erase the end user.",
            details={"devices": bound},
        )


def open_resets(view: View, project_id: str, end_user_id: str) -> list[str]:
    """Return the devices whose reset of a binding of this person is open."""
    found = {}
    for binding in binding_sql.of_person(view, project_id, end_user_id):
        command = command_sql.open_of_type(view, binding.device_pk, CommandType.FACTORY_RESET)
        if command is not None and command.binding_generation == binding.generation:
            found[binding.device_id] = command.id
    return list(found)


def erase_answers(tx: Tx, erasure: ErasureRecord) -> int:
    """Delete kept answers to idempotent requests that name the person; return how many, 0 when none are left."""
    with erasure_sql.overwriting(tx):
        done = idempotency_sql.erase(tx, erasure.project_id, erasure.end_user_id, _ANSWERS_AT_ONCE)
    return _count(tx, erasure, "answers", done)


def erase_refused(tx: Tx, erasure: ErasureRecord) -> int:
    """Delete refused messages that name the person, or came from a device of theirs; return how many."""
    rows = person_sql.refused_messages(tx, erasure.project_id, erasure.end_user_id, bindings(tx, erasure))
    with erasure_sql.overwriting(tx):
        done = erasure_sql.delete_refused(tx, [row.id for row in rows]) if rows else 0
    return _count(tx, erasure, "refused_messages", done)


def erase_states(tx: Tx, erasure: ErasureRecord) -> int:
    """Delete the newest reported values of devices that have reported none since; return of how many devices."""
    pks = {each.device_pk for each in bindings(tx, erasure) if erasure_sql.reports_are_theirs(tx, each)}
    with erasure_sql.overwriting(tx):
        done = sum(health_sql.forget_reports(tx, pk) for pk in sorted(pks))
    _count(tx, erasure, "states", done)
    return 0  # all at once: a person has few devices


def erase_heartbeats(tx: Tx, erasure: ErasureRecord) -> int:
    """Delete some heartbeats of the person's bindings; return how many, 0 when none are left.

    Then the hours that heartbeats were thinned to go: each counts once. Heartbeats come first, so that none is thinned
    after that.
    """
    with erasure_sql.overwriting(tx):
        for binding in bindings(tx, erasure):
            for delete in (binding_history_sql.delete, thinned_sql.delete_of_binding):
                done = delete(tx, binding, HEARTBEATS_AT_ONCE)
                if done:
                    return _count(tx, erasure, "heartbeats", done)
            done = binding_history_sql.delete_departed(tx, binding, HEARTBEATS_AT_ONCE)
            if done:
                return done  # each was counted with its hour
    return 0


STEPS: Final[tuple[Callable[[Tx, ErasureRecord], int], ...]] = (
    erase_answers,
    erase_refused,
    erase_states,
    erase_heartbeats,
)
"""Parts that find what they erase in an index. Each is repeated until it returns 0."""


def erase_in_events(tx: Tx, erasure: ErasureRecord, seqs: Sequence[int]) -> None:
    """Replace the id in these events, and delete their ended deliveries to webhooks."""
    with erasure_sql.overwriting(tx):
        renamed = erasure_sql.rename_in_events(tx, seqs, erasure.end_user_id, erasure.pseudonym)
        deleted = erasure_sql.delete_deliveries(tx, seqs)
    _count(tx, erasure, "events", renamed)
    _count(tx, erasure, "deliveries", deleted)


def erase_commands(tx: Tx, erasure: ErasureRecord, command_ids: Sequence[str]) -> None:
    """Empty these final commands of the person's bindings."""
    with erasure_sql.overwriting(tx):
        done = erasure_sql.empty_commands(tx, command_ids)
    _count(tx, erasure, "commands", done)


def erase_in_commands(tx: Tx, erasure: ErasureRecord, commands: Sequence[NamingCommand]) -> None:
    """Replace the id in the texts of those that are final."""
    final = [each for each in commands if each.final_at is not None]
    with erasure_sql.overwriting(tx):
        for each in final:
            erasure_sql.rename_in_command(tx, each, erasure.end_user_id, erasure.pseudonym)
    _count(tx, erasure, "commands", len(final))


def finish(tx: Tx, erasure: ErasureRecord) -> Erased | None:
    """Delete the record of a done erasure and write the event; return the counts.

    Return None when the erasure was extended meanwhile: then there is more to do.
    """
    now = erasure_sql.find(tx, erasure.pseudonym)
    if now is None:
        return ended(tx, erasure)
    if now.last_event != erasure.last_event:
        return None
    counts: dict[str, int] = json.loads(now.counts)
    with erasure_sql.overwriting(tx):
        erasure_sql.delete_bindings(tx, now.project_id, now.pseudonym)
        erasure_sql.delete(tx, now.pseudonym)
    if any(counts.values()):
        event_sql.record_administrative(
            tx, now.project_id, EventType.END_USER_ERASED, now.actor, pseudonym=now.pseudonym, counts=counts
        )
    return Erased(now.pseudonym, counts)


def ended(view: View, erasure: ErasureRecord) -> Erased:
    """Return an erasure that another process has brought to its end."""
    return Erased(erasure.pseudonym, erasure_sql.counts_told(view, erasure.project_id, erasure.pseudonym))


def progress(view: View, erasure: ErasureRecord) -> Erased:
    """Return how far an erasure is."""
    now = erasure_sql.find(view, erasure.pseudonym)
    return ended(view, erasure) if now is None else Erased(now.pseudonym, json.loads(now.counts), finished=False)


def bindings(view: View, erasure: ErasureRecord) -> list[BindingRecord]:
    """Return the bindings of a person who is being erased."""
    return binding_sql.of_person(view, erasure.project_id, erasure.pseudonym)


def _counts(counts: dict[str, int]) -> str:
    return json.dumps({name: counts.get(name, 0) for name in COUNTS})


def _count(tx: Tx, erasure: ErasureRecord, name: str, done: int) -> int:
    """Add to the stored counts; return ``done``."""
    if done:
        now = erasure_sql.find(tx, erasure.pseudonym)
        if now is not None:
            counts: dict[str, int] = json.loads(now.counts)
            counts[name] += done
            erasure_sql.store_counts(tx, erasure.pseudonym, counts)
    return done
