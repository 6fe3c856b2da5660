"""What a heartbeat changes of what is known of its device, and what of that is news."""

from __future__ import annotations

from operator import itemgetter
from typing import Final

from gateway import model
from gateway.store import Tx, events
from gateway.store import health as sql
from gateway.store.health import Sender

_SPREAD_MS: Final = 7_919  # a prime, so that neighbours lie far apart
_said: Final = itemgetter(*("device_state" if name == "recording_state" else name for name in sql.NEWEST))


def present(tx: Tx, device: Sender, radio: str | None) -> None:
    """The device was heard, whatever it said."""
    if not device.online:
        events.record(tx, device.row, "device.online", device.id, last_seen_by=radio)
    device.news = device.news or not device.online or _due_again(tx, device)
    device.online, device.last_heartbeat_at = True, tx.now


def _due_again(tx: Tx, device: Sender) -> bool:
    """Whether this is the first heartbeat in a while: ``last_heartbeat_at`` alone is no news, but must not get old.

    A while begins at another moment for each device, so that a fleet does not tell all at once.
    """
    last, refresh_ms = device.last_heartbeat_at, tx.rules.state_refresh_ms
    if last is None or not refresh_ms:
        return True
    offset = device.pk * _SPREAD_MS % refresh_ms
    return bool((last + offset) // refresh_ms != (tx.now + offset) // refresh_ms)


def says(tx: Tx, device: Sender, heartbeat: model.Heartbeat) -> None:
    """Take over what it says; what it leaves out stays as it was."""
    before, said = device.said, _said(heartbeat.__dict__)
    if None in said:
        said = tuple([old if new is None else new for new, old in zip(said, before, strict=True)])
    if said != before:
        device.news, device.said = True, said
    links = heartbeat.connection_type
    if links is not None and (joined := ",".join(links)) != device.links:
        device.news, device.links = True, joined
    _judge(tx, device, heartbeat)
    firmware = heartbeat.firmware_version
    if firmware is not None and firmware != device.firmware:
        _runs(tx, device, firmware)


def _judge(tx: Tx, device: Sender, heartbeat: model.Heartbeat) -> None:
    """A battery or a storage is judged by all that is known of it.

    Or one that is told now by its percentage, now by its flag would seem to recover in between.
    """
    charge, _, _, _, state, _, _, flags = device.said
    flags = flags or 0
    low = model.low_battery(state, flags, charge, device.threshold)
    full = model.storage_full(state, flags)
    if low and not device.low_battery:
        events.record(tx, device.row, "device.low_battery", device.id, battery_percent=heartbeat.battery_percent)
    if full and not device.storage_full:
        events.record(tx, device.row, "device.storage_full", device.id, storage_used_mb=heartbeat.storage_used_mb)
    device.low_battery, device.storage_full = low, full


def _runs(tx: Tx, device: Sender, firmware: str) -> None:
    sql.store_firmware(tx, device.pk, firmware)
    events.record(tx, device.row, "device.updated", device.id, firmware_version=firmware)
    device.firmware = firmware
