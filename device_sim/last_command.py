"""The outcome of the last wipe, and the heartbeats that repeat it until the gateway confirms it."""

from collections.abc import Mapping
from typing import Any

from device_sim.actions import Action, Area, EraseFlash, Transport, WriteFlash
from device_sim.journal import Outcome
from device_sim.strict_json import read_json

LAST_COMMAND = "last_command"


class LastCommand:
    """Outcome of the last wipe, stored in the flash area that a wipe keeps.

    A PUBACK comes from the broker and proves nothing about the gateway. The broker may lose the message or have no
    subscriber for it. The gateway may refuse it, since the token may be revoked by then.

    So over MQTT the device repeats the outcome in each connection, under any token. Heartbeats number 1, 2, 4, 8 and so
    on carry it: soon after a fault ends, then ever more rarely. Only an answer of the gateway ends it: a confirmation
    over HTTP, or a message on `errors` that it will never accept this.
    """

    def __init__(self, kept: Mapping[str, Any]) -> None:
        self._outcome: Mapping[str, str] | None = kept.get(LAST_COMMAND)
        self._heartbeats = 0

    def store(self, outcome: Outcome) -> Action:
        """Store the outcome of a finished wipe."""
        self._outcome = {"command_id": outcome.command_id, "status": outcome.status, "receipt": outcome.receipt}
        return WriteFlash(Area.KEPT, LAST_COMMAND, self._outcome)

    def is_about(self, command_id: str | None) -> bool:
        """Return whether the stored outcome is about this command."""
        return self._outcome is not None and self._outcome["command_id"] == command_id

    def start_connection(self) -> None:
        """Count heartbeats from the start, for a new connection."""
        self._heartbeats = 0

    def for_next_heartbeat(self, transport: Transport) -> Mapping[str, str] | None:
        """Return the part about the last wipe for the next heartbeat, or None. Call it once for each heartbeat."""
        self._heartbeats += 1
        is_due = transport != "mqtt" or self._heartbeats.bit_count() == 1  # a power of two
        return self._outcome if is_due else None

    def confirm(self, transport: Transport) -> list[Action]:
        """Process a confirmation. Over HTTP and BLE the gateway sends it, which ends the repetition."""
        return [] if transport == "mqtt" else self._erase()

    def handle_refusal(self, payload: bytes) -> list[Action]:
        """Process a message on `errors`. If it refuses the outcome, this gateway never accepts it, so forget it."""
        try:
            field = read_json(payload)["field"]
        except (ValueError, LookupError, TypeError, RecursionError):
            return []
        return self._erase() if str(field).startswith(f"{LAST_COMMAND}.") else []

    def _erase(self) -> list[Action]:
        if self._outcome is None:
            return []
        self._outcome = None
        return [EraseFlash(Area.KEPT, LAST_COMMAND)]
