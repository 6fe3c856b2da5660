"""Heartbeats: the state that devices report, and their presence (contract, section 3).

Presence has one column: the time at which an online device becomes offline unless it sends something. A heartbeat moves
it three intervals ahead; a last will or an offline message moves it close. However a link ends, it thus ends in
``offline`` once, and a flapping link makes no storm of events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any, Final

from gateway.core.clock import DAY_MS
from gateway.domain import acknowledgements
from gateway.domain.acknowledgements import AcknowledgementSource
from gateway.domain.commands import Refusal
from gateway.models.commands import Ack
from gateway.models.heartbeats import Heartbeat, LastCommand, low_battery, room_again, storage_full
from gateway.models.states import TokenState
from gateway.store import (
    Rules,
    Tx,
    binding_sql,
    event_budget_sql,
    event_sql,
    health_sql,
    heartbeat_age_sql,
    heartbeat_sql,
    measurements,
    outbox_sql,
    thinned_sql,
)
from gateway.store.device_cache import CachedDevice, SenderRecord
from gateway.store.event_budget_sql import Budgets
from gateway.store.heartbeat_sql import Beat

ONLINE: Final = "device.online"
_LOW: Final = "device.low_battery"
_FULL: Final = "device.storage_full"
_UPDATED: Final = "device.updated"
_SPREAD_MS: Final = 7_919  # a prime, so that neighbours lie far apart
_TOTAL: Final = health_sql.NEWEST.index("storage_total_mb")
_said: Final = itemgetter(*("device_state" if name == "recording_state" else name for name in health_sql.NEWEST))
_SWEEP: Final = 500


def record_heartbeat(
    tx: Tx,
    device: SenderRecord,
    heartbeat: Heartbeat,
    radio: str | None,
    *,
    at_broker: bool = False,
    sender: AcknowledgementSource | None = None,
) -> Refusal | None:
    """Store one heartbeat. Return the refusal of its ``last_command``, if that was refused.

    The heartbeat itself is stored all the same. ``at_broker``: it came over MQTT; ``sender``: who relays it.
    """
    heard = HeartbeatBatch(tx, at_broker=at_broker)
    heard.take([Beat(CachedDevice(device), heartbeat, radio)])
    heard.settle()
    return _last_command(tx, device, heartbeat.last_command, sender)


class HeartbeatBatch:
    """Stores heartbeats, apart from their ``last_command``, in one transaction.

    It does for many what it would do for each in turn, with a few statements for all. Each goes into the history,
    changes become events, and the newest of each device becomes its state in :meth:`settle`. Of a device that belongs
    to no user, or that waits for its reset, only presence is stored.

    In a ``shared`` transaction nothing that devices share is written before :meth:`settle`, where it has one order.
    """

    def __init__(
        self,
        tx: Tx,
        *,
        at_broker: bool,
        yield_to_urgent: Callable[[], None] = lambda: None,
        shared: bool = False,
    ) -> None:
        self._tx = tx
        self._yield_to_urgent = yield_to_urgent
        self._at_broker = at_broker
        self._shared = shared
        self._devices: dict[int, CachedDevice] = {}
        self._budgets = Budgets(tx)
        self._firmware: dict[int, str] = {}

    def take(self, beats: Sequence[Beat]) -> None:
        """Store some, in the order of arrival."""
        told = [beat for beat in beats if beat.device.tells]
        stored = heartbeat_sql.append(self._tx, told, shared=self._shared)
        _count(self._tx, beats, len(told), len(stored))
        if self._shared:
            self._budgets.expect(beat.device.pk for beat in beats)
        else:
            self._budgets = Budgets(self._tx, (beat.device.pk for beat in beats))
        budgets, firmware = self._budgets, self._firmware
        now, rest = self._tx.now, iter(stored)
        to_say = next(rest, None)
        for beat in beats:
            device, heartbeat, radio = beat
            if device.last_heartbeat_at != now or not device.online:  # once in a transaction
                mark_online(self._tx, budgets, device, radio)
            device.radio = radio or device.radio
            self._devices[device.pk] = device
            if beat is to_say:
                update_state(budgets, firmware, device, heartbeat)
                to_say = next(rest, None)
        if not self._shared:
            self._store_news()

    def _store_news(self) -> None:
        """Write changed firmware versions and events."""
        if self._firmware:
            health_sql.store_firmware(self._tx, self._firmware)
            self._firmware.clear()
        self._budgets.store()

    def settle(self) -> None:
        """Write the newest state of each device, before other code reads it and at the end."""
        devices = list(self._devices.values())
        if self._shared:
            self._settle_shared(devices)
        else:
            self._settle_all(devices)
        self._devices.clear()

    def _settle_shared(self, devices: Sequence[CachedDevice]) -> None:
        """Write what belongs to one device first. What devices share is written under one lock, which is held last."""
        self._settle_all([device for device in devices if device.is_steady])
        changed = [device for device in devices if not device.is_steady]
        if changed or self._firmware or self._budgets.has_changed:
            event_sql.lock_numbers(self._tx)
            self._settle_all(changed)
            self._store_news()

    def _settle_all(self, devices: Sequence[CachedDevice]) -> None:
        part = self._tx.dialect.together
        for begin in range(0, len(devices), part):
            if begin:  # between two parts: a single heartbeat, such as one over HTTP, does not yield
                self._yield_to_urgent()
            self._settle(devices[begin : begin + part])

    def _settle(self, devices: Sequence[CachedDevice]) -> None:
        health_sql.store_newest(self._tx, devices, at_broker=self._at_broker)
        outbox_sql.mark_all_mirrors(self._tx, [device.pk for device in devices if device.news], outbox_sql.STATE)
        for device in devices:
            device.news = False


def _count(tx: Tx, beats: Sequence[Beat], told: int, stored: int) -> None:
    counts = {"stored": stored, "replayed": told - stored}
    if told < len(beats):
        resetting = sum(beat.device.token_state == TokenState.RESET_ONLY for beat in beats)
        counts |= {"reset_only": resetting, "unbound": len(beats) - told - resetting}
    for outcome, count in counts.items():
        if count:
            tx.measure(measurements.HEARTBEAT, outcome, count)


def mark_online(tx: Tx, budgets: Budgets, device: CachedDevice, radio: str | None) -> None:
    """Mark the device as online, whatever its heartbeat holds."""
    if not device.online or device.owed:
        _tell(budgets, device, ONLINE, is_new=not device.online, last_seen_by=radio)
    device.news = device.news or not device.online or _due_again(tx, device)
    device.online, device.last_heartbeat_at = True, tx.now


def _due_again(tx: Tx, device: CachedDevice) -> bool:
    """Return whether the state is due again: ``last_heartbeat_at`` alone is no change, but must not get old.

    The interval begins at another time for each device, so that a fleet does not publish all at once.
    """
    last, refresh_ms = device.last_heartbeat_at, tx.rules.state_refresh_ms
    if last is None or not refresh_ms:
        return True
    offset = device.pk * _SPREAD_MS % refresh_ms
    return bool((last + offset) // refresh_ms != (tx.now + offset) // refresh_ms)


def update_state(budgets: Budgets, changed: dict[int, str], device: CachedDevice, heartbeat: Heartbeat) -> None:
    """Take over what the heartbeat reports. What it leaves out stays as it was.

    ``changed`` gets a new firmware version, by the row number of the device.
    """
    before, said = device.said, _known(_said(heartbeat.__dict__), device.said)
    if said != before:
        device.news, device.said = True, said
    links = heartbeat.connection_type
    if links is not None and (joined := ",".join(links)) != device.links:
        device.news, device.links = True, joined
    _judge(budgets, device, heartbeat)
    firmware = heartbeat.firmware_version
    if firmware is not None and firmware != device.firmware:
        changed[device.pk] = device.firmware = firmware
        _tell(budgets, device, _UPDATED, is_new=True, firmware_version=firmware)
    elif device.owed:
        _tell(budgets, device, _UPDATED, is_new=False, firmware_version=device.firmware)


def _known(said: tuple[Any, ...], before: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return what is known now. It is spelled out because a loop takes five times as long, for each heartbeat."""
    charge, used, total, signal, state, name, recordings, flags = said
    return (
        before[0] if charge is None else charge,
        before[1] if used is None else used,
        before[2] if total is None else total,
        before[3] if signal is None else signal,
        before[4] if state is None else state,
        before[5] if name is None else name,
        before[6] if recordings is None else recordings,
        before[7] if flags is None else flags,
    )


def _judge(budgets: Budgets, device: CachedDevice, heartbeat: Heartbeat) -> None:
    """Judge battery and storage by all known values.

    A device that reports now its percentage, now its flag would otherwise seem to recover in between.
    """
    charge, _, _, _, state, _, _, flags = device.said
    flags = flags or 0
    low = low_battery(state, flags, charge, device.threshold, was_low=device.low_battery)
    full = storage_full(state, flags) or (device.storage_full and not _has_room_again(device, heartbeat))
    if low:
        _tell(budgets, device, _LOW, is_new=not device.low_battery, battery_percent=heartbeat.battery_percent)
    if full:
        _tell(budgets, device, _FULL, is_new=not device.storage_full, storage_used_mb=heartbeat.storage_used_mb)
    device.low_battery, device.storage_full = low, full


def _has_room_again(device: CachedDevice, heartbeat: Heartbeat) -> bool:
    """Return whether a device that no longer reports a full storage shows a reason: figures, or its state alone.

    Figures count in the heartbeat that brings them. Old figures would keep a device that reports none full for ever.
    """
    used, total = heartbeat.storage_used_mb, device.said[_TOTAL]
    if used is not None and total:
        return room_again(used, total)
    return used is not None or heartbeat.flags is not None or heartbeat.device_state is not None


def _tell(budgets: Budgets, device: CachedDevice, kind: str, *, is_new: bool, **facts: Any) -> None:
    """Write the event of a new condition, or of one that still holds and was suppressed."""
    if is_new:
        told = budgets.record(device, kind, device.id, **facts)
    elif kind in device.owed:
        told = budgets.make_up(device, kind, device.id, **facts)
    else:
        return
    device.owed = device.owed - {kind} if told else device.owed | {kind}


def _last_command(
    tx: Tx, device: SenderRecord, last: LastCommand | None, sender: AcknowledgementSource | None
) -> Refusal | None:
    if last is None:
        return None
    ack = Ack(command_id=last.command_id, status=last.status, receipt=last.receipt)
    outcome = acknowledgements.acknowledge(tx, device, None, ack, sender)
    return replace(outcome, field=f"last_command.{outcome.field}") if isinstance(outcome, Refusal) else None


def device_online(tx: Tx, device: SenderRecord) -> None:
    """Apply the device's online message."""
    if device.connection == "offline":
        event_budget_sql.record(tx, device, ONLINE, device.id, last_seen_by=None)
        outbox_sql.mark_mirror(tx, device.pk, outbox_sql.STATE)
    elif ONLINE in (device.owed or ""):
        event_budget_sql.make_up(tx, device, ONLINE, device.id, last_seen_by=None)
    health_sql.seen(tx, device.pk, tx.now + tx.rules.silence_ms)


def device_offline(tx: Tx, device: SenderRecord) -> None:
    """Apply the device's offline message or last will: it becomes offline after the grace time."""
    health_sql.leaving(tx, device.pk, tx.now + tx.rules.offline_grace_ms)


def left_broker(tx: Tx, device: SenderRecord) -> None:
    """Apply a retained ``offline``. It may be older than what the device sent since, for example over HTTP.

    It counts only for a device whose last message came over MQTT: its session must have ended after that.
    """
    health_sql.left_broker(tx, device.pk, tx.now + tx.rules.offline_grace_ms)


def latest_due(rules: Rules, now: int) -> int:
    """Return the latest deadline that a device can have, unless the clock was set back."""
    return now + rules.silence_ms + health_sql.CLOCKS_DIFFER_MS


def sweep_presence(tx: Tx, *, until: int | None = None) -> int:
    """Set devices offline that are overdue, a few hundred at a time; return how many there were.

    ``until`` is when the gateway last received, in ms: later steps of the clock set no device offline. After the clock
    was set back, silence counts from now, a few thousand devices at a time. Otherwise a device that is gone would stay
    online for as long as the clock went back.
    """
    health_sql.wait_no_longer(tx, latest_due(tx.rules, tx.now), tx.now + tx.rules.silence_ms, 10 * _SWEEP)
    rows = health_sql.overdue(tx, tx.now if until is None else min(until, tx.now), _SWEEP)
    for device in rows:
        health_sql.set_offline(tx, device.pk)
        if event_budget_sql.owes(tx, device.pk, ONLINE):  # the event that it was online was suppressed
            event_budget_sql.suppress(tx, device.pk, "device.offline")
        else:
            event_sql.record(tx, device, "device.offline", "gateway")
    return len(rows)


def prune(tx: Tx) -> int:
    """Thin and delete history, and delete events, that are older than the settings keep, a few thousand at a time.

    A binding stays while a heartbeat or an event of it may be there.
    """
    history_before = tx.now - tx.rules.heartbeat_history_days * DAY_MS
    events_before = tx.now - tx.rules.event_history_days * DAY_MS
    done = _prune_heartbeats(tx, history_before)
    done += event_sql.prune(tx, events_before, 10 * _SWEEP)
    return done + binding_sql.prune(tx, min(history_before, events_before), 10 * _SWEEP)


def _prune_heartbeats(tx: Tx, history_before: int) -> int:
    raw_before = tx.now - tx.rules.heartbeat_raw_days * DAY_MS
    done = heartbeat_age_sql.prune(tx, history_before, 10 * _SWEEP)  # before they are thinned in vain
    if not done and raw_before > history_before:
        done = thinned_sql.thin(tx, raw_before, 2 * _SWEEP)  # each costs three times as much as its deletion
    return done + thinned_sql.prune(tx, history_before, 10 * _SWEEP)
