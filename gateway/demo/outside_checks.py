"""Checks from outside: what is retained on the broker, and what a token opens over HTTP and at the broker."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any, Final

import aiomqtt
import httpx

from gateway.core.received_json import parse_json
from gateway.mqtt.connect import BrokerAddress
from gateway.mqtt.v3.client import QuietClient

_MARK: Final = "gateways/demo/mark"
_HTTP_UNAUTHORIZED: Final = 401


@dataclass(frozen=True)
class TokenUse:
    """What a device token opened: the statuses of a heartbeat and of another call, and the commands handed over."""

    heartbeat: int
    other_call: int
    commands: tuple[str, ...]

    @property
    def opens_nothing(self) -> bool:
        """Return whether everything was refused."""
        return self.heartbeat == self.other_call == _HTTP_UNAUTHORIZED

    @property
    def opens_only_its_reset(self) -> bool:
        """Return whether the heartbeat handed over the reset, and all else was refused."""
        return self.commands == ("factory_reset",) and self.other_call == _HTTP_UNAUTHORIZED


class Outside:
    """A client of the broker with an administrator's rights, and a client of the HTTP API with a token."""

    def __init__(self, broker: BrokerAddress, url: str) -> None:
        self._broker = broker
        self._url = url

    async def retained(self, topic: str) -> dict[str, Any] | None:
        """Return what a new subscriber gets on this topic, or None when nothing is retained there."""
        async with self._client() as client:
            await client.subscribe(topic, qos=1)
            await client.subscribe(_MARK, qos=1)
            await client.publish(_MARK, b"that was all", qos=1)
            async for message in client.messages:
                if message.topic.matches(topic) and message.payload:
                    document: dict[str, Any] = parse_json(message.payload)
                    return document
                if message.topic.matches(_MARK):
                    return None
        return None

    async def replay(self, topic: str, payload: dict[str, Any]) -> None:
        """Publish an old message once more, as a client with rights on the broker could."""
        async with self._client() as client:
            await client.publish(topic, json.dumps(payload), qos=1)

    def _client(self) -> aiomqtt.Client:
        return QuietClient(
            self._broker.host,
            self._broker.port,
            username=self._broker.username,
            password=self._broker.password,
            identifier="demo",
        )

    async def broker_refuses(self, device_id: str, password: str) -> bool:
        """Return whether the broker refuses this device with this password."""
        client = QuietClient(
            self._broker.host, self._broker.port, username=device_id, password=password, identifier=device_id
        )
        try:
            async with asyncio.timeout(5), client:
                return False
        except aiomqtt.MqttError:
            return True

    async def token_opens(self, token: str) -> TokenUse:
        """Try the token on a heartbeat and on the list of open commands."""
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(base_url=self._url, headers=headers) as client:
            beat = await client.post("/v1/devices/me/heartbeat", json={})
            other = await client.get("/v1/devices/me/commands/pending")
        commands = beat.json().get("commands") or [] if beat.is_success else []
        return TokenUse(beat.status_code, other.status_code, tuple(command["type"] for command in commands))
