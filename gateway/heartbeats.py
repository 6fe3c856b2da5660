"""What a device says of itself, and whether it is there (contract, section 3).

Presence has one column, the instant at which a device that is online becomes offline unless it is heard again: a
heartbeat moves it three intervals ahead, a last will or a clean good-bye pulls it close. So however a link ends, it
ends in ``offline`` once, and a flapping one makes no storm of events.
"""

from __future__ import annotations

from typing import Final

from gateway import commands, model
from gateway.commands import Refusal
from gateway.model import Radio, TokenState
from gateway.store import Row, Tx, events, measures, outbox
from gateway.store import health as sql

_SWEEP: Final = 500
_DAY_MS: Final = 86_400_000
_SHOWN: Final = ("battery_percent", "storage_used_mb", "storage_total_mb", "signal_strength_dbm")
_SPREAD_MS: Final = 7_919  # a prime, so that neighbours lie far apart


def beat(tx: Tx, device: Row, heartbeat: model.Heartbeat, radio: Radio | None) -> Refusal | None:
    """Take a heartbeat. A device that waits for its reset shows presence and nothing else is stored of it.

    Returns the refusal of its ``last_command``, if that was refused; the heartbeat itself is taken all the same.
    """
    _present(tx, device, radio, heartbeat=True)
    if device["token_state"] == TokenState.RESET_ONLY:
        tx.measure(measures.HEARTBEAT, "reset_only")
    else:
        _store(tx, device, heartbeat, radio)
    return _last_command(tx, device, heartbeat.last_command)


def _present(tx: Tx, device: Row, radio: Radio | None, *, heartbeat: bool) -> None:
    if device["connection"] == "offline":
        events.record(tx, device, "device.online", device["id"], last_seen_by=radio)
    sql.seen(tx, device["pk"], radio, tx.now + tx.rules.silence_ms, heartbeat=heartbeat)
    if device["connection"] == "offline" or (heartbeat and _due_again(tx, device)):
        outbox.mark_shown(tx, device["pk"], outbox.STATE)


def _due_again(tx: Tx, device: Row) -> bool:
    """Whether this is the first heartbeat in a while: ``last_heartbeat_at`` alone is no news, but must not grow old.

    A while begins at another moment for each device, so that a fleet does not tell all at once.
    """
    last, refresh_ms = device["last_heartbeat_at"], tx.rules.state_refresh_ms
    if last is None or not refresh_ms:
        return True
    offset = device["pk"] * _SPREAD_MS % refresh_ms
    return bool((last + offset) // refresh_ms != (tx.now + offset) // refresh_ms)


def _store(tx: Tx, device: Row, heartbeat: model.Heartbeat, radio: Radio | None) -> None:
    if not sql.store_history(tx, device["pk"], heartbeat, radio):
        tx.measure(measures.HEARTBEAT, "replayed")
        return
    tx.measure(measures.HEARTBEAT, "stored")
    known = heartbeat.completed(
        battery_percent=device["battery_percent"], flags=device["flags"], device_state=device["recording_state"]
    )
    low, full = known.low_battery(device["low_battery_threshold"]), known.storage_full
    sql.store_newest(tx, device["pk"], heartbeat, low_battery=low, storage_full=full)
    if _is_news(device, heartbeat):
        outbox.mark_shown(tx, device["pk"], outbox.STATE)
    if low and not device["low_battery"]:
        events.record(tx, device, "device.low_battery", device["id"], battery_percent=heartbeat.battery_percent)
    if full and not device["storage_full"]:
        events.record(tx, device, "device.storage_full", device["id"], storage_used_mb=heartbeat.storage_used_mb)
    _firmware(tx, device, heartbeat.firmware_version)


def _is_news(device: Row, heartbeat: model.Heartbeat) -> bool:
    """Whether it says something else than what the registry shows of the device."""
    said = {name: getattr(heartbeat, name) for name in _SHOWN} | {"recording_state": heartbeat.device_state}
    return any(value is not None and value != device[name] for name, value in said.items())


def _firmware(tx: Tx, device: Row, version: str | None) -> None:
    if version is not None and version != device["firmware_version"]:
        sql.store_firmware(tx, device["pk"], version)
        events.record(tx, device, "device.updated", device["id"], firmware_version=version)


def _last_command(tx: Tx, device: Row, last: model.LastCommand | None) -> Refusal | None:
    if last is None:
        return None
    ack = model.Ack(command_id=last.command_id, status=last.status, receipt=last.receipt)
    outcome = commands.acknowledge(tx, device, None, ack)
    return outcome if isinstance(outcome, Refusal) else None


def birth(tx: Tx, device: Row) -> None:
    """The device says that it is there."""
    _present(tx, device, None, heartbeat=False)


def farewell(tx: Tx, device: Row) -> None:
    """The device, or its last will, says that it is gone; it is believed after the grace time."""
    sql.leaving(tx, device["pk"], tx.now + tx.rules.offline_grace_ms)


def sweep_presence(tx: Tx) -> int:
    """Devices that were not heard again in time are offline; how many there were, a few hundred at a time."""
    rows = sql.overdue(tx, tx.now, _SWEEP)
    for device in rows:
        sql.set_offline(tx, device["pk"])
        events.record(tx, device, "device.offline", "gateway")
    return len(rows)


def prune(tx: Tx) -> int:
    """Drop history and events that are older than the settings keep, a few thousand at a time."""
    history = sql.prune_history(tx, tx.now - tx.rules.heartbeat_history_days * _DAY_MS, 10 * _SWEEP)
    return history + events.prune(tx, tx.now - tx.rules.event_history_days * _DAY_MS, 10 * _SWEEP)
