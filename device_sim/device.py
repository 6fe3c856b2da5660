"""Firmware: a state machine without I/O, whose clock and randomness come from outside.

`handle(input, now)` returns actions, and the runtime carries them out one by one, in order. The power may be cut
between any two of them. A new `Device` must then reach the same end from the content of the flash alone.
"""

import random
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Any

from device_sim import grant, grant_keys, reset, wire
from device_sim.actions import (
    APN,
    FIRMWARE,
    Action,
    Area,
    CommandReceived,
    Connection,
    EraseFlash,
    HeartbeatDue,
    Input,
    LinkDown,
    LinkRefused,
    LinkUp,
    OpenLink,
    PowerOn,
    Provisioned,
    Publish,
    Published,
    PublishFailed,
    Reboot,
    RecordFact,
    RefreshFailed,
    RefusalReceived,
    TokenRefreshed,
    WifiGiven,
    WriteFlash,
)
from device_sim.binding import PAIRING, TOKEN, WIFI, Binding
from device_sim.journal import Journal, Outcome
from device_sim.last_command import LastCommand
from device_sim.recordings import Recordings
from device_sim.sequences import Sequences
from device_sim.telemetry import Telemetry
from device_sim.token_refresh import TokenRefresh

JOURNAL = "last_commands"


class State(StrEnum):
    """Life cycle of a device; `rebooting` is also the state before its first `PowerOn`."""

    UNPROVISIONED = "unprovisioned"
    PROVISIONED = "provisioned"
    ONLINE = "online"
    RESETTING = "resetting"
    REBOOTING = "rebooting"


class Device:
    """RAM of one device. `rng` varies its battery, storage and signal. Each binding begins with `recordings` of them.

    `handle` gets one input and the time (milliseconds since the epoch) and returns the actions, in order.
    """

    def __init__(self, rng: random.Random, recordings: int = 0) -> None:
        self.state = State.REBOOTING
        self.binding: Binding | None = None
        self._telemetry = Telemetry(rng)
        self._recordings = Recordings({})
        self._recordings_at_bind = recordings
        self._journal = Journal()
        self._kept_area: Mapping[str, Any] = {}
        self._last_command = LastCommand({})
        self._sequences = Sequences(None, {})
        self._networks: list[Mapping[str, str]] = []
        self._accepted_reset: wire.Command | None = None
        self._link: LinkUp | None = None
        self._last_heartbeat_at: int | None = None
        self._token_refresh = TokenRefresh()

    def handle(self, event: Input, now: int) -> list[Action]:  # noqa: C901, PLR0911  # a table: one line per input
        """Process one input. A device that is rebooting ignores all but `PowerOn`."""
        if isinstance(event, PowerOn):
            return self._power_on(event)
        if self.state is State.REBOOTING:
            return []
        match event:
            case CommandReceived():
                return self._command(event, now)
            case Published():
                return self._published(event.message)
            case PublishFailed():
                return self._publish_failed(event)
            case HeartbeatDue():
                return self._heartbeat(now)
            case LinkUp() | LinkDown() | LinkRefused():
                return self._link_changed(event, now)
            case Provisioned():
                return self._provisioned(event)
            case WifiGiven():
                return self._wifi_given(event)
            case RefusalReceived():
                refused = RecordFact("message_refused", {"answer": event.payload.decode(errors="replace")})
                return [refused, *self._last_command.handle_refusal(event.payload)]
            case TokenRefreshed():
                return self._token_refreshed(event)
            case RefreshFailed():
                return self._token_refresh.failed(event, now)

    # --- power and provisioning ---------------------------------------------------------------------------------------

    def _power_on(self, flash: PowerOn) -> list[Action]:
        self._kept_area = flash.kept
        self._journal = Journal(flash.kept.get(JOURNAL, ()))
        self._last_command = LastCommand(flash.kept)
        self._recordings = Recordings(flash.kept)
        self._networks = list(flash.wiped.get(WIFI, ()))
        self._link = self._accepted_reset = None
        self._token_refresh = TokenRefresh()
        self.binding = Binding.from_flash(flash.wiped)
        self._sequences = Sequences(None if self.binding is None else self.binding.generation, flash.kept)
        progress = flash.kept.get(reset.IN_PROGRESS)
        if progress is not None:
            return self._resume_reset(Outcome(**progress))
        if self.binding is None:
            return self._start_unpaired()
        self.state = State.PROVISIONED
        return [RecordFact("powered_on", {"pairing": "paired"}), OpenLink(self._connection(), self.binding)]

    def _start_unpaired(self) -> list[Action]:
        self.state = State.UNPROVISIONED
        self.binding, self._networks = None, []
        return [RecordFact("powered_on", {"pairing": "unpaired"})]

    def _connection(self) -> Connection:
        """Return WiFi where a network is known, else the modem if there is one, else BLE through a companion app."""
        return "wifi" if self._networks else "4g" if self._kept_area.get(APN) else "ble"

    def _provisioned(self, event: Provisioned) -> list[Action]:
        if self.state is not State.UNPROVISIONED:
            return [RecordFact("provisioning_refused", {"reason": "the device is paired; reset it first"})]
        self.state, self.binding = State.PROVISIONED, event.binding
        self._sequences = Sequences(event.binding.generation, {})
        self._networks = list(event.wifi_networks)
        return [
            WriteFlash(Area.WIPED, WIFI, self._networks),
            WriteFlash(Area.WIPED, PAIRING, event.binding.pairing()),
            WriteFlash(Area.WIPED, TOKEN, event.binding.device_token),  # last: a binding with a token is complete
            *self._recordings.make(self._recordings_at_bind, event.binding.generation),
            RecordFact("provisioned", {"device_id": event.binding.device_id, "generation": event.binding.generation}),
            OpenLink(self._connection(), event.binding),
        ]

    def _wifi_given(self, event: WifiGiven) -> list[Action]:
        if self.binding is None or self.state is State.RESETTING:
            return [RecordFact("wifi_refused", {"ssid": event.ssid, "reason": "the device is not paired"})]
        other_networks = [each for each in self._networks if each["ssid"] != event.ssid]
        self._networks = [*other_networks, {"ssid": event.ssid, "psk": event.psk}]
        self._link = self._accepted_reset = None
        self.state = State.PROVISIONED
        return [
            WriteFlash(Area.WIPED, WIFI, self._networks),
            RecordFact("wifi_given", {"ssid": event.ssid}),
            OpenLink("wifi", self.binding),
        ]

    # --- link and heartbeats ------------------------------------------------------------------------------------------

    def _link_changed(self, event: LinkUp | LinkDown | LinkRefused, now: int) -> list[Action]:
        match event:
            case LinkUp():
                return self._link_up(event, now)
            case LinkDown():
                return self._link_down(event)
            case LinkRefused():
                refused = RecordFact("refused", {"refusals": event.refusals, "reason": event.reason})
                self._token_refresh.is_needed = event.transport == "mqtt" and self.state is State.PROVISIONED
                return [refused, *self._token_refresh.request(self.binding, now)]

    def _link_up(self, event: LinkUp, now: int) -> list[Action]:
        if self.binding is None or self.state is State.RESETTING:
            return []
        self.state, self._link, self._token_refresh.is_needed = State.ONLINE, event, False
        self._last_command.start_connection()
        birth: list[Action] = [Publish("status", wire.ONLINE)] if event.transport == "mqtt" else []
        details = {"connection": event.connection, "transport": event.transport}
        return [RecordFact("online", details), *birth, *self._heartbeat(now)]

    def _link_down(self, event: LinkDown) -> list[Action]:
        self._link = self._accepted_reset = None
        if self.state is State.ONLINE:
            self.state = State.PROVISIONED
        return [RecordFact("offline", {"reason": event.reason})]

    def _heartbeat(self, now: int) -> list[Action]:
        if self.state is not State.ONLINE or self._link is None or self.binding is None:
            return self._token_refresh.request(self.binding, now)
        before = now if self._last_heartbeat_at is None else self._last_heartbeat_at
        # Equal times would look like a replay of one heartbeat (section 3), so each is later than the one before.
        self._last_heartbeat_at = now if self._last_heartbeat_at is None else max(now, before + 1)
        recordings = self._recordings.report(self.binding.generation)
        last_command = self._last_command.for_next_heartbeat(self._link.transport)
        body = {
            **self._telemetry.report(max(0, now - before), self._link.connection, **recordings),
            "firmware_version": self._kept_area.get(FIRMWARE),
            "sent_at": wire.rfc3339(self._last_heartbeat_at),
            "last_command": last_command,
        }
        command_id = last_command["command_id"] if last_command else None
        return [Publish("heartbeat", wire.encode(body), command_id=command_id)]

    def _token_refreshed(self, event: TokenRefreshed) -> list[Action]:
        if self.binding is None or self.state is not State.PROVISIONED:
            return []
        self.binding, actions = self._token_refresh.taken(self.binding, event)
        return [*actions, OpenLink(self._connection(), self.binding)]

    # --- commands -----------------------------------------------------------------------------------------------------

    def _command(self, event: CommandReceived, now: int) -> list[Action]:
        if not event.payload:
            return self._command_cleared(event.type)
        try:
            command = wire.parse_command(event.payload)
        except wire.MalformedError as error:
            return [RecordFact("command_ignored", {"type": event.type, "reason": str(error)})]
        stored = self._journal.find(command.id, event.type)
        if stored is not None:
            known = RecordFact("already_done", {"command_id": stored.command_id, "status": stored.status})
            return [known, stored.acknowledge()]
        if self.binding is None or self.state is State.RESETTING:
            reason = "the device is unpaired or being wiped"
            return [RecordFact("command_ignored", {"type": event.type, "reason": reason})]
        return self._new_command(command, event.type, self.binding, now)

    def _command_cleared(self, command_type: str) -> list[Action]:
        """Handle an empty retained message: no command of this type is open, so drop a reset that has not begun."""
        if command_type != reset.RESET or self._accepted_reset is None:
            return []
        dropped, self._accepted_reset = self._accepted_reset, None
        return [RecordFact("reset_withdrawn", {"command_id": dropped.id})]

    def _new_command(self, command: wire.Command, topic_type: str, binding: Binding, now: int) -> list[Action]:
        details = {"command_id": command.id, "type": topic_type, "generation": command.binding_generation}
        received = RecordFact("command_received", details)
        try:
            seq = grant.check(command, topic_type, binding, self._sequences, now)
            reset.check_params(command)
        except grant.RefusalError as refusal:
            return [received, *self._refuse(command, topic_type, binding, refusal)]
        self.binding, dropped = grant_keys.settled(binding, command)
        recorded = self._sequences.record(topic_type, seq, command.id)
        return [received, *dropped, *recorded, *self._execute(command, self.binding)]

    def _refuse(
        self, command: wire.Command, topic_type: str, binding: Binding, refusal: grant.RefusalError
    ) -> list[Action]:
        error = {"code": refusal.code, "message": refusal.message}
        failed = Outcome.of(command, "failed", binding)
        outcome = replace(failed, type=topic_type, error=error, result=refusal.result)
        # Store it only if the gateway signed it: a forgery must not use up an id before the real command arrives.
        writes = [self._store_outcome(outcome)] if refusal.is_signed else []
        refused = RecordFact("command_refused", {"command_id": command.id, "type": topic_type, "code": refusal.code})
        return [refused, *writes, outcome.acknowledge()]

    def _execute(self, command: wire.Command, binding: Binding) -> list[Action]:
        delivered = Outcome.of(command, "delivered", binding).acknowledge()
        if command.type == reset.RESET:
            self._accepted_reset = command  # `_begin_reset` follows when the delivery of this message is confirmed
            return [delivered]
        if command.type == grant_keys.SET_GRANT_KEY:
            return [delivered, *self._take_grant_key(command, binding)]
        is_reboot = command.type == "reboot"
        result, effects = ({"rebooting": True}, []) if is_reboot else self._recordings.execute(command, binding)
        self._telemetry.free_storage(result.get("uploaded", 0))
        outcome = replace(Outcome.of(command, "executed", binding), result=result)
        done: list[Action] = [delivered, *effects, self._store_outcome(outcome), outcome.acknowledge()]
        return [*done, *self._reboot()] if is_reboot else done

    def _take_grant_key(self, command: wire.Command, binding: Binding) -> list[Action]:
        try:
            self.binding, written = grant_keys.announced(binding, command.params)
        except grant.RefusalError as refusal:
            return self._refuse(command, command.type, binding, refusal)
        result = {"grant_kid": self.binding.grant_keys[0]["kid"]}
        outcome = replace(Outcome.of(command, "executed", binding), result=result)
        return [*written, self._store_outcome(outcome), outcome.acknowledge()]

    def _store_outcome(self, outcome: Outcome) -> WriteFlash:
        self._journal.add(outcome)
        return WriteFlash(Area.KEPT, JOURNAL, self._journal.to_flash())

    # --- the reset (section 4 of the contract) ------------------------------------------------------------------------

    def _published(self, message: Publish) -> list[Action]:
        if message.kind == "ack" and message.status == "delivered":
            return self._begin_reset(message)
        if not self._last_command.is_about(message.command_id):
            return []
        erased = [] if self._link is None else self._last_command.confirm(self._link.transport)
        return [*erased, *self._end_reset()]

    def _publish_failed(self, event: PublishFailed) -> list[Action]:
        message = event.message
        is_about_wipe = self._last_command.is_about(message.command_id)
        if message.kind == "ack" and self.state is State.RESETTING and is_about_wipe:
            return [RecordFact("acknowledgement_lost", {"command_id": message.command_id}), *self._end_reset()]
        if self._accepted_reset is None or message.command_id != self._accepted_reset.id:
            return []
        self._accepted_reset = None  # the retained command arrives again with the next link
        return [RecordFact("reset_postponed", {"command_id": message.command_id, "reason": event.reason})]

    def _begin_reset(self, delivered: Publish) -> list[Action]:
        command, binding = self._accepted_reset, self.binding
        if command is None or binding is None or delivered.command_id != command.id:
            return []
        self._accepted_reset = None
        self.state = State.RESETTING
        outcome = reset.outcome_of(command, binding, self._recordings)
        # The receipt needs the token, so it is made and stored before the token is erased.
        begun = WriteFlash(Area.KEPT, reset.IN_PROGRESS, outcome.to_flash())
        return [begun, *self._wipe(outcome), outcome.acknowledge()]

    def _wipe(self, outcome: Outcome) -> list[Action]:
        """Wipe, and store the outcome for the next heartbeats. A repetition is safe."""
        return [
            *reset.erase(outcome, self._recordings),
            self._store_outcome(outcome),
            self._last_command.store(outcome),
            EraseFlash(Area.KEPT, reset.IN_PROGRESS),
        ]

    def _end_reset(self) -> list[Action]:
        return self._reboot() if self.state is State.RESETTING else []

    def _reboot(self) -> list[Action]:
        self.state = State.REBOOTING
        return [Reboot()]

    def _resume_reset(self, outcome: Outcome) -> list[Action]:
        resumed = RecordFact("wipe_resumed", {"command_id": outcome.command_id})
        return [resumed, *self._wipe(outcome), *self._start_unpaired()]
