"""Links over HTTP: a companion app that relays heartbeats of a BLE-only device, and a device that uses HTTP itself."""

import asyncio
import json

from device_sim.actions import (
    CommandReceived,
    Connection,
    LinkRefused,
    LinkUp,
    Publish,
    RefreshFailed,
    RefreshToken,
    TokenRefreshed,
)
from device_sim.app import GatewayApi
from device_sim.binding import Binding
from device_sim.errors import ApiError, RadioError, SimulatorError
from device_sim.radio import REPORT_AFTER_REFUSALS, Deliver

UNAUTHORIZED = 401


class BleRelay:
    """A companion app in reach. It relays heartbeats with its API key and never brings a command (section 4)."""

    def __init__(self, binding: Binding, deliver: Deliver, api: GatewayApi) -> None:
        self._binding = binding
        self._deliver = deliver
        self._api = api

    async def run(self) -> None:
        """Stay in reach until cancelled."""
        self._deliver(LinkUp("ble", "ble"))
        await asyncio.Event().wait()

    async def publish(self, message: Publish) -> None:
        """Relay a heartbeat. BLE carries no other messages."""
        if message.kind != "heartbeat":
            raise RadioError(f"a companion app relays no {message.kind}")
        try:
            await self._api.relay_heartbeat(self._binding.device_id, message.payload)
        except SimulatorError as error:
            raise RadioError(str(error)) from error

    def cut(self) -> None:
        """Do nothing: each relayed heartbeat is a separate call."""


async def refresh_token(api: GatewayApi, request: RefreshToken) -> TokenRefreshed | RefreshFailed:
    """Request another token of a binding, and return the result as an input."""
    try:
        return await api.refresh_token(request.binding)
    except SimulatorError as error:
        if not isinstance(error, ApiError):
            return RefreshFailed(str(error), revoked=False)
        return RefreshFailed(str(error), revoked=error.status == UNAUTHORIZED, retry_after=error.retry_after or 0.0)


class HttpRadio:
    """A device with HTTP instead of MQTT. Commands arrive with the answers to its heartbeats."""

    def __init__(self, binding: Binding, connection: Connection, deliver: Deliver, api: GatewayApi) -> None:
        self._binding = binding
        self._connection = connection
        self._deliver = deliver
        self._api = api
        self._refusals = 0

    async def run(self) -> None:
        """Report the link as up, and wait until cancelled."""
        self._deliver(LinkUp(self._connection, "http"))
        await asyncio.Event().wait()

    async def publish(self, message: Publish) -> None:
        """Send a heartbeat or an acknowledgement with the device's own token."""
        try:
            await self._send(message)
        except SimulatorError as error:
            self._count_refusal(error)
            raise RadioError(str(error)) from error
        self._refusals = 0

    def cut(self) -> None:
        """Do nothing: each message is a separate call."""

    async def _send(self, message: Publish) -> None:
        token = self._binding.device_token
        if message.kind == "ack":
            await self._api.send_ack(token, str(message.command_id), message.payload)
            return
        for command in await self._api.send_heartbeat(token, message.payload):
            self._deliver(CommandReceived(str(command.get("type")), json.dumps(command).encode()))

    def _count_refusal(self, error: SimulatorError) -> None:
        if not isinstance(error, ApiError) or error.status != UNAUTHORIZED:
            return
        self._refusals += 1
        if self._refusals == REPORT_AFTER_REFUSALS:
            self._deliver(LinkRefused(self._refusals, str(error), "http"))
