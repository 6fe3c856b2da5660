"""SQL of the brokers of a registry (contract, section 6).

A broker joins when a gateway first registers for it. From that commit on, each write marks what is out of step for it
too. A write holds the registry's lock to its commit. So it sees the broker, or it was committed before that joined.
What it changed then, the first comparison with the broker finds.

A broker that has had no owner for long is left out: nothing is marked for it. Its next owner compares everything.

A device may have a home (:mod:`gateway.store.home_sql`): then that broker alone serves it. Without one all do.
Times are milliseconds since the epoch, by the clock of the database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.store.records import FIRST_BROKER, columns

if TYPE_CHECKING:
    from gateway.store.transaction import Tx, View

FIRST: Final = FIRST_BROKER
"""The first broker of each registry, known by this number."""
FOLLOWED: Final = "FROM brokers b WHERE b.left_out_at IS NULL"
"""The brokers for which changes are marked."""
_SERVES: Final = "NOT EXISTS (SELECT 1 FROM homes AS ho WHERE ho.device_pk = {} AND ho.broker_pk <> {})"

SPEAKER: Final = "status_instance"
"""Fact: the process that said online at this broker last, for this registry (:mod:`gateway.mqtt.peers`)."""
FILE_RECORD: Final = "password_file"
"""Fact: the password file that was written last (:mod:`gateway.broker.mosquitto.file_record`)."""


def serves(device: str, broker: str) -> str:
    """Return the condition that a broker serves a device: no other one is its home. Both are expressions."""
    return _SERVES.format(device, broker)


class BrokerRecord(NamedTuple):
    """A broker; times are milliseconds since the epoch.

    ``added_at`` is None until a gateway has registered for it. ``compared_at`` is when its owner last compared all
    commands. ``away_since`` is since when it has no owner or its owner no connection, as far as that was noticed.
    ``left_out_at`` is since when nothing is marked for it. ``connected`` is 1 while its owner is connected and has
    compared. ``knows_tokens`` is 1 if it accepts a new token once it is in step. ``host``, ``port`` and ``tls`` are how
    devices reach it, None until its owner has told. ``draining`` is 1 while no bind chooses it as a home, ``devices``
    the number of devices whose home it is. ``owner`` is the gateway that owns it now, or None.
    """

    pk: int
    id: str
    added_at: int | None
    compared_at: int | None
    away_since: int | None
    left_out_at: int | None
    connected: int
    knows_tokens: int
    host: str | None
    port: int | None
    tls: int | None
    draining: int
    devices: int
    owner: str | None

    @property
    def is_away(self) -> bool:
        """Return whether no gateway is connected to it."""
        return self.owner is None or not self.connected


def brokers(view: View, instant: int) -> list[BrokerRecord]:
    """Return all brokers, by number; ``instant`` is the time of this process in milliseconds since the epoch."""
    return view.records(BrokerRecord, f"{_of(view, instant)} ORDER BY b.pk")


def find(view: View, broker_id: str, instant: int) -> BrokerRecord | None:
    """Return the broker of this id, if there is one."""
    return view.record(BrokerRecord, f"{_of(view, instant)} WHERE b.id = ?", broker_id)


def _of(view: View, instant: int) -> str:
    owner = f"""(SELECT l.gateway_id FROM leases l WHERE l.name = 'broker:' || b.id
        AND l.until > {view.dialect.now(instant)})"""  # noqa: S608 - our own expression
    return f"SELECT {columns(BrokerRecord, 'b', owner=owner)} FROM brokers b"  # noqa: S608 - our own columns


def devices_by_broker(view: View) -> list[tuple[str, int]]:
    """Return the id of each broker and the number of devices whose home it is."""
    return [(row["id"], row["devices"]) for row in view.all("SELECT id, devices FROM brokers ORDER BY pk")]


def by_pk(view: View, pk: int, instant: int) -> BrokerRecord:
    """Return the broker of this number."""
    broker = view.record(BrokerRecord, f"{_of(view, instant)} WHERE b.pk = ?", pk)
    if broker is None:
        raise LookupError(f"no broker {pk}")
    return broker


def awaited(view: View, instant: int) -> list[BrokerRecord]:
    """Return the brokers that must be in step before a caller may go on: those whose owner is connected.

    While no broker has one, these are all that have an owner; without an owner all that are followed. One of them may
    be back in a moment.
    """
    every = brokers(view, instant)
    there = [each for each in every if not each.is_away] or [each for each in every if each.owner is not None]
    return there or [each for each in every if each.left_out_at is None]


# --- joining and leaving --------------------------------------------------------------------------------------------


def join(tx: Tx, broker_id: str) -> int:
    """Return the number of this broker. Add it if it is new, or give the unused first broker this id."""
    pk: int | None = tx.value("SELECT pk FROM brokers WHERE id = ?", broker_id)
    now = tx.dialect.now(tx.now)
    if pk is None:
        pk = tx.value("SELECT pk FROM brokers WHERE added_at IS NULL")
    if pk is not None:
        tx.run(
            f"UPDATE brokers SET id = ?, added_at = coalesce(added_at, {now}) WHERE pk = ?",  # noqa: S608 - our own
            *(broker_id, pk),
        )
        return pk
    added: int = tx.value(
        f"""INSERT INTO brokers (pk, id, added_at) SELECT coalesce(max(pk), 0) + 1, CAST(? AS TEXT), {now} FROM brokers
            RETURNING pk""",  # noqa: S608 - our own expression
        broker_id,
    )
    return added


def follow(tx: Tx, pk: int, *, knows_tokens: bool) -> None:
    """Mark changes for this broker from now on: it has an owner, which is about to compare.

    How long it was away before does not count any more. Otherwise it would be left out again during its comparison.
    """
    tx.run(
        "UPDATE brokers SET left_out_at = NULL, away_since = NULL, connected = 0, knows_tokens = ? WHERE pk = ?",
        *(int(knows_tokens), pk),
    )


def set_address(tx: Tx, pk: int, host: str, port: int, *, tls: bool) -> None:
    """Store how devices reach this broker."""
    tx.run("UPDATE brokers SET host = ?, port = ?, tls = ? WHERE pk = ?", host, port, int(tls), pk)


def set_draining(tx: Tx, pk: int, *, draining: bool) -> None:
    """Choose this broker as a home no more, or again."""
    tx.run("UPDATE brokers SET draining = ? WHERE pk = ?", int(draining), pk)


def note_away(tx: Tx, pk: int, *, away: bool) -> None:
    """Note that this broker is away, from now on, or is back."""
    now = tx.dialect.now(tx.now)
    tx.run(f"UPDATE brokers SET away_since = {now if away else 'NULL'} WHERE pk = ?", pk)  # noqa: S608 - our own


def leave_out(tx: Tx, pk: int) -> None:
    """Mark nothing more for this broker, until it has an owner. Its password file is compared as a whole then."""
    forget_fact(tx, pk, FILE_RECORD)
    tx.run(f"UPDATE brokers SET left_out_at = {tx.dialect.now(tx.now)} WHERE pk = ?", pk)  # noqa: S608 - our own


def compared_at(view: View, pk: int, otherwise: int) -> int:
    """Return when all commands were last compared with this broker; ``otherwise`` for the first time."""
    found: int | None = view.value("SELECT compared_at FROM brokers WHERE pk = ?", pk)
    return otherwise if found is None else min(found, otherwise)


def note_compared(tx: Tx, pk: int) -> None:
    """Note that the owner is connected, and has compared all commands with this broker."""
    now = tx.dialect.now(tx.now)
    tx.run(f"UPDATE brokers SET compared_at = {now}, connected = 1 WHERE pk = ?", pk)  # noqa: S608 - our own


def note_lost(tx: Tx, pk: int) -> None:
    """Note that the owner has lost its connection."""
    tx.run("UPDATE brokers SET connected = 0 WHERE pk = ?", pk)


def remove(tx: Tx, broker: BrokerRecord, heir: int) -> None:
    """Remove a broker that is no home. Devices that were heard there count as heard at ``heir``."""
    tx.run("UPDATE health SET broker_pk = ?, at_broker = 0 WHERE broker_pk = ?", heir, broker.pk)
    for table in ("outbox", "broker_sessions", "broker_facts"):
        tx.run(f"DELETE FROM {table} WHERE broker_pk = ?", broker.pk)  # noqa: S608 - our own tables
    tx.run("DELETE FROM leases WHERE name = 'broker:' || CAST(? AS TEXT)", broker.id)
    tx.run("DELETE FROM brokers WHERE pk = ?", broker.pk)


class ForgivenSilence(NamedTuple):
    """Time without a connection that counts for no device: the last of it ended at ``at``, and all of it was ``ms``.

    A deadline from before ``at`` counts as later by ``ms``, but not as later than if the device had reported then.
    """

    at: int | None
    ms: int


def forgiven_silence(view: View, pk: int) -> ForgivenSilence:
    """Return the time that is forgiven the devices of this broker."""
    found = view.record(ForgivenSilence, "SELECT forgiven_at AS at, forgiven_ms AS ms FROM brokers WHERE pk = ?", pk)
    return found or ForgivenSilence(None, 0)


def forgive_silence(tx: Tx, pk: int, silence: ForgivenSilence) -> None:
    """Store the time that is forgiven the devices of this broker."""
    tx.run("UPDATE brokers SET forgiven_at = ?, forgiven_ms = ? WHERE pk = ?", silence.at, silence.ms, pk)


# --- facts ----------------------------------------------------------------------------------------------------------


def fact(view: View, pk: int, key: str) -> str | None:
    """Return a fact of this broker."""
    value: str | None = view.value("SELECT value FROM broker_facts WHERE broker_pk = ? AND key = ?", pk, key)
    return value


def set_fact(tx: Tx, pk: int, key: str, value: str) -> None:
    """Store a fact of this broker."""
    tx.run(
        """INSERT INTO broker_facts (broker_pk, key, value) VALUES (?, ?, ?)
            ON CONFLICT (broker_pk, key) DO UPDATE SET value = excluded.value""",
        *(pk, key, value),
    )


def forget_fact(tx: Tx, pk: int, key: str) -> None:
    """Delete a fact of this broker."""
    tx.run("DELETE FROM broker_facts WHERE broker_pk = ? AND key = ?", pk, key)


def forget_everywhere(tx: Tx, key: str) -> None:
    """Delete a fact of every broker."""
    tx.run("DELETE FROM broker_facts WHERE key = ?", key)
