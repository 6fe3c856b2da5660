"""What a heartbeat changes of what is known of its device, and what of that is news."""

from __future__ import annotations

from operator import itemgetter
from typing import Any, Final

from gateway.models import model
from gateway.store import Tx, event_budget_sql, health_sql
from gateway.store.sqlite.device_cache import DeviceState

ONLINE: Final = "device.online"
_LOW: Final = "device.low_battery"
_FULL: Final = "device.storage_full"
_UPDATED: Final = "device.updated"
_SPREAD_MS: Final = 7_919  # a prime, so that neighbours lie far apart
_TOTAL: Final = health_sql.NEWEST.index("storage_total_mb")
_said: Final = itemgetter(*("device_state" if name == "recording_state" else name for name in health_sql.NEWEST))


def mark_online(tx: Tx, device: DeviceState, radio: str | None) -> None:
    """The device was heard, whatever it said."""
    if not device.online or device.owed:
        _tell(tx, device, ONLINE, is_new=not device.online, last_seen_by=radio)
    device.news = device.news or not device.online or _due_again(tx, device)
    device.online, device.last_heartbeat_at = True, tx.now


def _due_again(tx: Tx, device: DeviceState) -> bool:
    """Whether this is the first heartbeat in a while: ``last_heartbeat_at`` alone is no news, but must not get old.

    A while begins at another moment for each device, so that a fleet does not tell all at once.
    """
    last, refresh_ms = device.last_heartbeat_at, tx.rules.state_refresh_ms
    if last is None or not refresh_ms:
        return True
    offset = device.pk * _SPREAD_MS % refresh_ms
    return bool((last + offset) // refresh_ms != (tx.now + offset) // refresh_ms)


def update_state(tx: Tx, device: DeviceState, heartbeat: model.Heartbeat) -> None:
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
        _update_firmware(tx, device, firmware)
    elif device.owed:
        _tell(tx, device, _UPDATED, is_new=False, firmware_version=device.firmware)


def _judge(tx: Tx, device: DeviceState, heartbeat: model.Heartbeat) -> None:
    """A battery or a storage is judged by all that is known of it.

    Or one that is told now by its percentage, now by its flag would seem to recover in between.
    """
    charge, _, _, _, state, _, _, flags = device.said
    flags = flags or 0
    low = model.low_battery(state, flags, charge, device.threshold, was_low=device.low_battery)
    full = model.storage_full(state, flags) or (device.storage_full and not _has_room_again(device, heartbeat))
    if low:
        _tell(tx, device, _LOW, is_new=not device.low_battery, battery_percent=heartbeat.battery_percent)
    if full:
        _tell(tx, device, _FULL, is_new=not device.storage_full, storage_used_mb=heartbeat.storage_used_mb)
    device.low_battery, device.storage_full = low, full


def _has_room_again(device: DeviceState, heartbeat: model.Heartbeat) -> bool:
    """Whether a device that says no more that its storage is full says why: by figures, or else by its word alone.

    Figures count in the heartbeat that brings them. Old ones would keep a device that tells no more full for ever.
    """
    used, total = heartbeat.storage_used_mb, device.said[_TOTAL]
    if used is not None and total:
        return model.room_again(used, total)
    return used is not None or heartbeat.flags is not None or heartbeat.device_state is not None


def _tell(tx: Tx, device: DeviceState, kind: str, *, is_new: bool, **facts: Any) -> None:
    """Record what has become so, and what is so still and was suppressed."""
    if is_new:
        told = event_budget_sql.record(tx, device.row, kind, device.id, **facts)
    elif kind in device.owed:
        told = event_budget_sql.make_up(tx, device.row, kind, device.id, **facts)
    else:
        return
    device.owed = device.owed - {kind} if told else device.owed | {kind}


def _update_firmware(tx: Tx, device: DeviceState, firmware: str) -> None:
    health_sql.store_firmware(tx, device.pk, firmware)
    _tell(tx, device, _UPDATED, is_new=True, firmware_version=firmware)
    device.firmware = firmware
