"""Epochs of the registry: no binding of a new epoch obeys a command from before it (contract, section 1).

There are two fences, and each is enough. The signing key is retired: a device that binds in the new epoch gets a key
that has signed nothing before. And every generation is raised to a number that was never issued. A device that is still
bound keeps its token, its generation and its key, so its open reset reaches it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog

from gateway.core.clock import SECOND_MS
from gateway.core.received_json import parse_json
from gateway.domain import administration, grants, sessions
from gateway.domain.commands import raise_open_resets
from gateway.store import broker_session_sql, broker_sql, command_sql, epoch_sql
from gateway.store.epoch_sql import Position

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gateway.store import Tx, View

log = structlog.get_logger()

GENERATIONS_BEGIN_MS: Final = 1_735_689_600_000
"""2025-01-01T00:00:00Z. Seconds since then are the clock's part of a generation: 31 bits hold them until 2093."""
STEP: Final = 1 << 20
"""An epoch begins at least this far above the known numbers: 1,048,576 rises of one device would have to be unknown."""
HIGHEST_BY_CLOCK: Final = (1 << 31) - (1 << 26)
"""A clock beyond this time (2091) is wrong and is ignored, so that generations stay below 2^31."""
_ID_BYTES: Final = 16
_ACTOR: Final = "gateway"

RESTORED: Final = "a backup was restored"


@dataclass(frozen=True)
class Epoch:
    """A new epoch: the generation of all devices, their number, and the signing key of its bindings."""

    epoch_id: str
    base: int
    devices: int
    kid: str


def begin(tx: Tx, reason: str, *, known: int = 0) -> Epoch:
    """Begin a new epoch. ``known``: the highest generation that is known to have been issued outside this registry.

    The ``seq`` of commands has the same base. Neither rises without an event, so one bound holds for both. The new
    generation is above all known ones, above the seconds of the clock, and partly random. It thus differs from that of
    another restore of the same backup, even when no number is known and the clock was set back.
    """
    tx.connection.take_time()
    epoch_id = tx.entropy(_ID_BYTES).hex()
    base = _next_base(tx, known)
    _, kid = administration.rotate_signing_key(tx, _ACTOR, reason=reason)
    devices = epoch_sql.raise_generations(tx, base)
    epoch_sql.identify(tx, registry_id(tx))
    epoch_sql.set_epoch(tx, epoch_id, base, reason)
    broker_session_sql.forget_all(tx)
    broker_sql.forget_everywhere(tx, broker_sql.SPEAKER)  # it may still run, on the registry that was here
    sessions.end_all(tx, "restored")
    raise_open_resets(tx)
    return Epoch(epoch_id, base, devices, kid)


def _next_base(tx: Tx, known: int) -> int:
    by_clock = (tx.now - GENERATIONS_BEGIN_MS) // SECOND_MS
    floor = max(
        epoch_sql.highest_generation(tx),
        command_sql.highest_seq(tx),
        known,
        by_clock if by_clock < HIGHEST_BY_CLOCK else 0,
    )
    return floor + STEP + int.from_bytes(tx.entropy(8)) % STEP


def registry_id(tx: Tx) -> str:
    """Return the id of this registry; make one if it has none."""
    return epoch_sql.registry_id(tx) or tx.entropy(_ID_BYTES).hex()


def known_by(position: Position | None) -> int:
    """Return the highest generation, and ``seq`` of a command, that a registry at this position can have issued."""
    return 0 if position is None else position.base + position.event_seq


def put_back(view: View, noted: Position | None, *, shared: bool = False) -> str | None:
    """Return why this registry is not the one that was here last, or None when it is.

    ``noted`` is the position in the file beside it. A registry of an older version, without an id, had no such file.
    ``shared``: it is on a server, so a new gateway has no file yet, and another gateway may have begun an epoch.
    """
    here = epoch_sql.position(view)
    if here is None:
        return None if noted is None else "it is a copy from before an upgrade"
    if noted is None:
        return None if shared else "the file that says how far it was is missing or damaged, so it may be an old copy"
    if shared and noted.epoch_id in epoch_sql.past(view):
        return None
    if (here.registry_id, here.epoch_id) != (noted.registry_id, noted.epoch_id):
        return "it is a copy from another epoch, or another registry"
    return _left_behind(view, here, noted)


def _left_behind(view: View, here: Position, noted: Position) -> str | None:
    """Return how the audit trail differs from the one in the file, or None when it continues that one."""
    if here.event_seq < noted.event_seq:
        return f"it ends at event {here.event_seq}, and the registry that was here reached {noted.event_seq}"
    known = epoch_sql.event_id(view, noted.event_seq)
    if None in (known, noted.event_id) or known == noted.event_id:  # it may have been pruned
        return None
    return f"its event {noted.event_seq} is {known}, and was {noted.event_id} in the registry that was here"


@dataclass(frozen=True)
class UnknownCommand:
    """A command that this gateway signed in this epoch and that the registry does not know.

    ``known`` is the highest generation or ``seq`` of all such commands that were found.
    """

    id: str
    known: int


def unknown_command(view: View, held: Iterable[bytes], before: UnknownCommand | None = None) -> UnknownCommand | None:
    """Return what these retained commands, and those ``before``, show of a lost registry; None if nothing.

    A command that this gateway signed in this epoch was committed before it was published: the registry must know it.
    """
    found = before
    for claims in _unknown_commands(view, held):
        known = max(claims["gen"], claims.get("seq", 0), found.known if found else 0)
        found = UnknownCommand(found.id if found else claims["jti"], known)
    return found


def lost_history(
    view: View, last_status: Position | None, unknown: UnknownCommand | None, broker: int
) -> tuple[str, int] | None:
    """Return how this broker shows that this registry was put back, and the highest generation known from that.

    ``last_status`` is what the broker kept of the last gateway of this id, ``unknown`` what its retained commands show.
    """
    reason = _behind_the_broker(view, last_status, broker)
    known = known_by(last_status)
    if unknown is not None:
        reason = reason or f"the broker holds {unknown.id}, which this gateway signed and the registry does not know"
        known = max(known, unknown.known)
    return None if reason is None else (reason, known)


def _behind_the_broker(view: View, last_status: Position | None, broker: int) -> str | None:
    here = epoch_sql.position(view)
    if here is None or last_status is None or last_status.registry_id != here.registry_id:
        return None
    if last_status.epoch_id in epoch_sql.past(view) or not epoch_sql.is_announced(view, broker):
        return None
    if last_status.epoch_id != here.epoch_id:
        return "the broker was served in another epoch of it since"
    if last_status.event_seq > here.event_seq:
        return f"it ends at event {here.event_seq}, and the broker was told of event {last_status.event_seq}"
    return None


def _unknown_commands(view: View, held: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    began_at = epoch_sql.began_at(view)
    for payload in held:
        with suppress(ValueError, TypeError, LookupError):
            said = parse_json(payload)
            if command_sql.by_id(view, str(said["id"])) is None:
                claims = grants.verified(view, said["grant_token"])
                if claims is not None and claims["iat"] * SECOND_MS >= began_at:
                    yield claims


def settle(tx: Tx, noted: Position | None, *, shared: bool = False) -> Epoch | None:
    """Give a new registry its id. Begin a new epoch for one that was put back by hand, and return that epoch."""
    reason = put_back(tx, noted, shared=shared)
    if reason is None:
        if epoch_sql.position(tx) is None:
            epoch_sql.identify(tx, registry_id(tx))
            epoch_sql.set_first_epoch(tx, tx.entropy(_ID_BYTES).hex())
        return None
    return begin_after_loss(tx, reason, known_by(noted))


def begin_after_loss(tx: Tx, reason: str, known: int) -> Epoch:
    """Begin a new epoch for a registry that was put back by hand, and log it."""
    began = begin(tx, f"the registry was put back by hand: {reason}", known=known)
    log.error(
        "registry.put_back",
        reason=reason,
        generation=began.base,
        devices=began.devices,
        kid=began.kid,
        message="The registry file is not the one that this gateway wrote last. A new epoch begins: devices that are "
        "bound go on, new bindings get a new signing key and higher generations, and nothing that was sent before "
        "is obeyed under them. What happened after the copy was made is not in it ('gateway docs runbook').",
    )
    return began
