"""Devices with one planted fault each: the simulator with a part replaced, and the lines that must fail."""

import base64
import dataclasses
import json
from typing import Any
from unittest.mock import patch

import aiomqtt

from device_sim import GatewayApi, reset
from device_sim.actions import (
    Action,
    CommandReceived,
    EraseFlash,
    LinkDown,
    LinkRefused,
    LinkUp,
    OpenLink,
    PowerOn,
    Publish,
    TokenRefreshed,
    WriteFlash,
)
from device_sim.binding import Binding
from device_sim.canonical import params_digest
from device_sim.conformance.issuer import SigningKey
from device_sim.device import Device
from device_sim.journal import Journal, Outcome
from device_sim.last_command import LastCommand
from device_sim.radio import MqttRadio
from device_sim.recordings import RECORDINGS, Recordings
from device_sim.reset import RESET
from device_sim.sequences import Sequences
from device_sim.wire import ONLINE, Command, refresh_key

FORGER = SigningKey()


# --- what it obeys ----------------------------------------------------------------------------------------------------


def claims_of(command: Command) -> dict[str, Any]:
    """The claims of a grant, unverified; empty when they cannot be read."""
    try:
        body = command.grant_token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    except (ValueError, IndexError):
        return {}
    return claims if isinstance(claims, dict) else {}


class AnySignature(Device):
    """Accepts every signature for now."""

    def _new_command(self, command: Command, topic_type: str, binding: Binding, now: int) -> list[Action]:
        signed = dataclasses.replace(command, grant_token=FORGER.sign(claims_of(command)))
        trusting = dataclasses.replace(binding, grant_key=FORGER.jwk)
        return super()._new_command(signed, topic_type, trusting, now)


class AnyParams(Device):
    """Verifies the signature, and does not look at `par`: whatever it says, these are the params."""

    def _new_command(self, command: Command, topic_type: str, binding: Binding, now: int) -> list[Action]:
        for signed in ({}, {"minutes": 5}, {"minutes": 6}):
            if claims_of(command).get("par") == params_digest(signed):
                command = dataclasses.replace(command, params=signed)
        return super()._new_command(command, topic_type, binding, now)


class ChecksIat(Device):
    """Uses a JWT library with its defaults."""

    def _new_command(self, command: Command, topic_type: str, binding: Binding, now: int) -> list[Action]:
        if claims_of(command).get("iat", 0) * 1000 > now + 60_000:
            command = dataclasses.replace(command, grant_token="too early")
        return super()._new_command(command, topic_type, binding, now)


class AnySequence(Device):
    """Ignores `seq`."""

    def _new_command(self, command: Command, topic_type: str, binding: Binding, now: int) -> list[Action]:
        self._sequences = Sequences(binding.generation, {})
        return super()._new_command(command, topic_type, binding, now)


class ForgetsIds(Device):
    """Keeps no outcome."""

    def _store_outcome(self, outcome: Outcome) -> WriteFlash:
        written = super()._store_outcome(outcome)
        self._journal = Journal()
        return dataclasses.replace(written, value=[])


class KeepsIdsInRam(Device):
    """Keeps outcomes until the power is gone."""

    def _store_outcome(self, outcome: Outcome) -> WriteFlash:
        return dataclasses.replace(super()._store_outcome(outcome), value=[])


class DropsRetained(MqttRadio):
    """Takes a retained message for a replay."""

    def _receive(self, message: aiomqtt.Message) -> None:
        if not message.retain:
            super()._receive(message)


# --- the reset --------------------------------------------------------------------------------------------------------


class WipesAtOnce(Device):
    """Wipes without waiting for the PUBACK of `delivered`."""

    def _execute(self, command: Command, binding: Binding) -> list[Action]:
        actions = super()._execute(command, binding)
        if command.type != RESET:
            return actions
        (delivered,) = actions
        assert isinstance(delivered, Publish)
        return [delivered, *self._begin_reset(delivered)]


class NoReceipt(MqttRadio):
    """Leaves the receipt out of what it acknowledges."""

    async def publish(self, message: Publish) -> None:
        """Send an acknowledgement without it."""
        if message.kind == "ack":
            body = json.loads(message.payload)
            body.pop("receipt", None)
            message = dataclasses.replace(message, payload=json.dumps(body).encode())
        await super().publish(message)


class ReconnectsWiped(Device):
    """Keeps the binding in RAM, and connects with it after the wipe."""

    _former: Binding | None = None

    def _begin_reset(self, delivered: Publish) -> list[Action]:
        self._former = self.binding
        return super()._begin_reset(delivered)

    def _power_on(self, flash: PowerOn) -> list[Action]:
        actions = super()._power_on(flash)
        again = [] if self._former is None or self.binding is not None else [OpenLink("wifi", self._former)]
        self._former = None
        return [*actions, *again]


class NoLastCommand(Device):
    """Reports no outcome after the next bind."""

    def _power_on(self, flash: PowerOn) -> list[Action]:
        actions = super()._power_on(flash)
        self._last_command = LastCommand({})
        return actions


# --- recordings -------------------------------------------------------------------------------------------------------


class ParWithoutRecordings(Device):
    """Takes the choice about recordings from the message, and all other params as they were signed."""

    def _new_command(self, command: Command, topic_type: str, binding: Binding, now: int) -> list[Action]:
        arrived = command
        for choice in ({}, {"recordings": "keep"}, {"recordings": "wipe"}):
            if command.type == RESET and claims_of(command).get("par") == params_digest(choice):
                command = dataclasses.replace(command, params=choice)
        actions = super()._new_command(command, topic_type, binding, now)
        if self._accepted_reset is not None:
            self._accepted_reset = arrived
        return actions


class AnyChoice(Device):
    """Keeps the recordings when it does not know the word."""

    def _new_command(self, command: Command, topic_type: str, binding: Binding, now: int) -> list[Action]:
        with patch.object(reset, "check_params", lambda _: None):
            return super()._new_command(command, topic_type, binding, now)


class _Unlabelled(Recordings):
    def _waiting(self, generation: int) -> list[str]:
        del generation
        return sorted(self._made_in)


class UploadsOthers(Device):
    """Uploads whatever it has."""

    def _power_on(self, flash: PowerOn) -> list[Action]:
        actions = super()._power_on(flash)
        self._recordings = _Unlabelled(flash.kept)
        return actions


class SaysWiped(Device):
    """Reports recordings as wiped, and has them still."""

    def _wipe(self, outcome: Outcome) -> list[Action]:
        actions = super()._wipe(outcome)
        return [each for each in actions if not (isinstance(each, EraseFlash) and each.name == RECORDINGS)]


class _Result(Device):
    """Changes the result of a reset before it is stored."""

    def _begin_reset(self, delivered: Publish) -> list[Action]:
        real = reset.outcome_of

        def changed(command: Command, binding: Binding, recordings: Recordings) -> Outcome:
            outcome = real(command, binding, recordings)
            return dataclasses.replace(outcome, result=self._changed(dict(outcome.result or {})))

        with patch.object(reset, "outcome_of", changed):
            return super()._begin_reset(delivered)

    def _changed(self, result: dict[str, Any]) -> dict[str, Any]:
        return result


class CountsNothing(_Result):
    """Was made before resets said anything of recordings."""

    def _changed(self, result: dict[str, Any]) -> dict[str, Any]:
        del result["recordings"], result["technique"]
        return result


class ClaimsMore(_Result):
    """Claims a technique for what it did not wipe."""

    def _changed(self, result: dict[str, Any]) -> dict[str, Any]:
        return {**result, "technique": {**result["technique"], "serial_number": "overwritten"}}


# --- the connection ---------------------------------------------------------------------------------------------------


class CleanSession(MqttRadio):
    """Asks for a new session at each connect."""

    def _new_client(self) -> aiomqtt.Client:
        client = super()._new_client()
        client._client._clean_session = True  # noqa: SLF001  # aiomqtt does not offer it after the fact
        return client


class BirthFirst(MqttRadio):
    """Publishes `online` before it subscribes."""

    async def _run_session(self, client: aiomqtt.Client) -> None:
        await client.publish(self._topics.of("status"), ONLINE, qos=1, retain=True)
        await super()._run_session(client)


class TokenAsPassword(MqttRadio):
    """Sends the token to the broker."""

    def _new_client(self) -> aiomqtt.Client:
        client = super()._new_client()
        client._client.username_pw_set(self._binding.device_id, self._binding.device_token)  # noqa: SLF001  # the same
        return client


class NeverRefreshes(Device):
    """Keeps its token, whatever the broker says."""

    def _link_changed(self, event: LinkUp | LinkDown | LinkRefused, now: int) -> list[Action]:
        return [] if isinstance(event, LinkRefused) else super()._link_changed(event, now)


class StaysAtItsBroker(Device):
    """Takes the token of a refresh, and not the broker that admits it."""

    def _token_refreshed(self, event: TokenRefreshed) -> list[Action]:
        assert self.binding is not None
        return super()._token_refreshed(dataclasses.replace(event, mqtt=self.binding.mqtt))


class AsksOnce(MqttRadio):
    """Reports refusals of the first link alone: it counts on, and compares with three."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._backoff.refusals = getattr(self._backoff, "refused_before", 0)

    def _count_refusal(self, reason: str) -> float:
        delay = super()._count_refusal(reason)
        self._backoff.refused_before = self._backoff.refusals  # type: ignore[attr-defined]  # outlives the link
        return delay


class AnyAddress(GatewayApi):
    """Takes whatever stands in the place of an address."""

    async def refresh_token(self, binding: Binding) -> TokenRefreshed:
        """Ask, and check nothing."""
        token = binding.device_token
        key = refresh_key(token)
        answer = await self.call("POST", "/v1/devices/me/token/refresh", {}, bearer=token, idempotency_key=key)
        host, port, tls = (answer["mqtt"][name] for name in ("host", "port", "tls"))
        told = dataclasses.replace(binding.mqtt, host=str(host), port=port, tls=tls)
        return TokenRefreshed(answer["device_token"], told)


class AcknowledgesNothing(Device):
    """Acknowledges an empty payload, as if it were a command."""

    def _command(self, event: CommandReceived, now: int) -> list[Action]:
        if not event.payload:
            return [Publish("ack", b'{"command_id":"","status":"failed"}', "", event.type, "failed")]
        return super()._command(event, now)
