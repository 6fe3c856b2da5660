"""What a device has to say of its last wipe, and for how long it goes on saying it."""

import json
from collections.abc import Mapping
from typing import Any

from device_sim.actions import Action, Area, EraseFlash, Transport, WriteFlash
from device_sim.journal import Outcome

LAST_COMMAND = "last_command"


class LastWord:
    """The word about the last wipe, kept outside of what a wipe takes.

    A PUBACK is the broker's: it may still lose what it confirmed, have nobody to hand it to, or the gateway may refuse
    it since the token was revoked meanwhile. So over MQTT the word is said in each connection, under whatever token,
    in its heartbeats number 1, 2, 4, 8 and so on: soon after a trouble is over, and ever more rarely. What ends it is
    the gateway's own word: an answer over HTTP, or on `errors` that it will never take this.
    """

    def __init__(self, kept: Mapping[str, Any]) -> None:
        self._word: Mapping[str, str] | None = kept.get(LAST_COMMAND)
        self._heartbeats = 0

    def keep(self, outcome: Outcome) -> Action:
        """A wipe is done, and this is the word about it."""
        self._word = {"command_id": outcome.command_id, "status": outcome.status, "receipt": outcome.receipt}
        return WriteFlash(Area.KEPT, LAST_COMMAND, self._word)

    def is_about(self, command_id: str | None) -> bool:
        """Whether it tells of this command."""
        return self._word is not None and self._word["command_id"] == command_id

    def connected(self) -> None:
        """A connection begins."""
        self._heartbeats = 0

    def in_next_heartbeat(self, transport: Transport) -> Mapping[str, str] | None:
        """What the next heartbeat says of it; to be asked once for each."""
        self._heartbeats += 1
        due = transport != "mqtt" or self._heartbeats.bit_count() == 1  # a power of two
        return self._word if due else None

    def taken(self, transport: Transport) -> list[Action]:
        """The far end confirmed it: the gateway over HTTP, also by way of a companion app, the broker over MQTT."""
        return [] if transport == "mqtt" else self._forget()

    def refused(self, answer: bytes) -> list[Action]:
        """What the gateway says on `errors`; if that is about the word, it is of no use to this gateway."""
        try:
            field = json.loads(answer)["field"]
        except (ValueError, LookupError, TypeError, RecursionError):
            return []
        return self._forget() if str(field).startswith(f"{LAST_COMMAND}.") else []

    def _forget(self) -> list[Action]:
        if self._word is None:
            return []
        self._word = None
        return [EraseFlash(Area.KEPT, LAST_COMMAND)]
