"""SQL of the registry's identity and of its epoch (contract, section 1).

A restored registry begins a new epoch, since it may issue again what the lost one has issued already.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.store import broker_sql
from gateway.store.key_sql import EPOCH_BASE, meta, set_meta
from gateway.store.outbox_sql import STATE, mark_fleet

if TYPE_CHECKING:
    from gateway.store.transaction import Tx, View

REGISTRY_ID: Final = "registry_id"
EPOCH_ID: Final = "epoch_id"
EPOCH_BEGAN_AT: Final = "epoch_began_at"
EPOCH_REASON: Final = "epoch_reason"
PAST_EPOCHS: Final = "epochs_past"
ANNOUNCED_EPOCH: Final = "epoch_announced"


@dataclass(frozen=True)
class Position:
    """Which registry this is, in which epoch, and how far its audit trail is.

    ``base`` is the generation that the epoch began with. Every rise of a generation writes an event, so no device of
    this registry has a generation above ``base + event_seq``. ``event_id`` names the event of that number. It is
    ``None`` when the event was pruned, or before the first event.
    """

    registry_id: str
    epoch_id: str
    base: int
    event_seq: int
    event_id: str | None


def registry_id(view: View) -> str | None:
    """Return the id that the registry got at its first start; its backups have the same."""
    return meta(view, REGISTRY_ID)


def position(view: View) -> Position | None:
    """Return the position of the registry, or None for one that an older version wrote and that has no id yet."""
    own_id, epoch_id = registry_id(view), meta(view, EPOCH_ID)
    if own_id is None or epoch_id is None:
        return None
    seq = newest_event(view)
    return Position(own_id, epoch_id, base(view), seq, event_id(view, seq))


def newest_event(view: View) -> int:
    """Return the number of the newest event that was ever committed; 0 before the first."""
    return int(view.value(view.dialect.newest_event) or 0)


def event_id(view: View, seq: int) -> str | None:
    """Return the id of the event with this number, or None when it was pruned or does not exist."""
    found: str | None = view.value("SELECT id FROM events WHERE seq = ?", seq)
    return found


def base(view: View) -> int:
    """Return the generation that the present epoch began with."""
    return int(meta(view, EPOCH_BASE) or 0)


def highest_generation(view: View) -> int:
    """Return the highest generation of any device or token."""
    devices = view.value("SELECT max(binding_generation) FROM devices")
    return max(base(view), devices or 0, view.value("SELECT max(generation) FROM tokens") or 0)


def raise_generations(tx: Tx, to: int) -> int:
    """Set the generation of every device, deleted ones too; return how many devices there are.

    Tokens and open commands keep theirs: a device that is still bound goes on obeying commands of its own generation.
    """
    changed = tx.run("UPDATE devices SET binding_generation = ?, updated_at = ?", to, tx.now).rowcount
    mark_fleet(tx, STATE)
    return changed


def identify(tx: Tx, registry_id: str) -> None:
    """Give the registry its id."""
    set_meta(tx, REGISTRY_ID, registry_id)


def set_first_epoch(tx: Tx, epoch_id: str) -> None:
    """Give the registry its first epoch."""
    set_meta(tx, EPOCH_ID, epoch_id)


def past(view: View) -> list[str]:
    """Return the ids of the registry's earlier epochs."""
    return (meta(view, PAST_EPOCHS) or "").split()


def began_at(view: View) -> int:
    """Return when the present epoch began (milliseconds since the epoch); 0 for the first one."""
    return int(meta(view, EPOCH_BEGAN_AT) or 0)


def reason(view: View) -> str:
    """Return why the present epoch began; empty for the first one."""
    return meta(view, EPOCH_REASON) or ""


def is_announced(view: View, broker: int) -> bool:
    """Return whether the present epoch was published to this broker."""
    return announced(view, broker) == meta(view, EPOCH_ID)


def announced(view: View, broker: int) -> str | None:
    """Return the epoch that was published to this broker last, or None."""
    return broker_sql.fact(view, broker, ANNOUNCED_EPOCH)


def announce(tx: Tx, broker: int, epoch_id: str) -> None:
    """Note that this epoch was published to this broker."""
    broker_sql.set_fact(tx, broker, ANNOUNCED_EPOCH, epoch_id)


def set_epoch(tx: Tx, epoch_id: str, base: int, reason: str) -> None:
    """Note that a new epoch began now, why, and with which generation."""
    left = [*past(tx), meta(tx, EPOCH_ID) or ""]
    set_meta(tx, PAST_EPOCHS, " ".join(left).strip())
    facts = {EPOCH_ID: epoch_id, EPOCH_BASE: str(base), EPOCH_BEGAN_AT: str(tx.now), EPOCH_REASON: reason}
    for key, value in facts.items():
        set_meta(tx, key, value)
