"""Request of another token while the broker refuses the present one (contract, section 2)."""

from dataclasses import replace

from device_sim.actions import Action, Area, RecordFact, RefreshFailed, RefreshToken, TokenRefreshed, WriteFlash
from device_sim.binding import PAIRING, TOKEN, Binding
from device_sim.wire import SECOND_MS


class TokenRefresh:
    """Whether the broker refuses the token, and when another one may be requested.

    A broker that holds one password per device may already hold that of a refresh whose answer was lost. So the device
    requests a token over HTTP with each heartbeat that is due, until there is an answer.
    """

    def __init__(self) -> None:
        self.is_needed = False
        self._not_before = 0

    def request(self, binding: Binding | None, now: int) -> list[Action]:
        """Return the request if one is due at `now` (milliseconds since the epoch)."""
        is_due = self.is_needed and now >= self._not_before
        return [RefreshToken(binding)] if is_due and binding is not None else []

    def taken(self, binding: Binding, event: TokenRefreshed) -> tuple[Binding, list[Action]]:
        """Return the binding with the new token, and what stores it.

        After a power cut between the two writes the former broker refuses the new token, so the device asks once more.
        """
        self.is_needed = False
        renewed = replace(binding, device_token=event.device_token, mqtt=event.mqtt)
        actions: list[Action] = [WriteFlash(Area.WIPED, TOKEN, event.device_token)]
        if event.mqtt != binding.mqtt:
            actions.append(WriteFlash(Area.WIPED, PAIRING, renewed.pairing()))
        return renewed, [*actions, RecordFact("token_refreshed", {"generation": binding.generation})]

    def failed(self, event: RefreshFailed, now: int) -> list[Action]:
        """Process a failed request. A revoked token is not requested again, and `Retry-After` delays the next one."""
        self.is_needed = self.is_needed and not event.revoked
        self._not_before = now + round(event.retry_after * SECOND_MS) if event.retry_after else 0
        return [RecordFact("token_not_refreshed", {"reason": event.reason})]
