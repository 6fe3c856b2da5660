"""Operators of a chaos round: they bind, reset, cancel, unbind and delete over HTTP, and note what was answered."""

import asyncio
import contextlib
import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from device_sim import ApiError, GatewayApi, SimulatedDevice, SimulatorError
from device_sim.actions import Area
from device_sim.binding import WIPED_BY_A_RESET

RESET = "factory_reset"
OPEN = ("pending", "delivered")

_PATIENT = 0.7
_TRIES = 200
_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 0.4
_AGAIN = (httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.TOO_MANY_REQUESTS)


@dataclass(frozen=True)
class Token:
    """One that a bind answered with."""

    device_id: str
    generation: int
    secret: str


@dataclass
class Ledger:
    """What was answered: resets by device id and the generation that the answer showed, and every token."""

    resets: set[tuple[str, int]] = field(default_factory=set)
    tokens: list[Token] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """Answers that no caller should ever get."""


class RetryingTransport(httpx.AsyncBaseTransport):
    """HTTP as a good client speaks it: each POST under an `Idempotency-Key`, and, if patient, until it is answered.

    With several gateways each try goes to one of them, whichever.
    """

    def __init__(self, ports: Sequence[int], ledger: Ledger, rng: random.Random) -> None:
        self._inner = httpx.AsyncHTTPTransport()
        self._ports = ports
        self._ledger = ledger
        self._rng = rng

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send it, and send it again."""
        if request.method == "POST":
            request.headers["Idempotency-Key"] = secrets.token_hex(16)
        tries = _TRIES if self._rng.random() < _PATIENT else 1
        while True:
            tries -= 1
            try:
                answer = await self._answer(request)
            except httpx.TransportError:
                if not tries:
                    raise
            else:
                if answer.status_code not in _AGAIN or not tries:
                    return answer
            await asyncio.sleep(_PAUSE_SECONDS)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        if len(self._ports) > 1:
            request.url = request.url.copy_with(port=self._rng.choice(self._ports))
        answer = await self._inner.handle_async_request(request)
        await answer.aread()
        if answer.is_server_error and answer.status_code not in _AGAIN:
            self._ledger.failures.append(f"{request.method} {request.url}: {answer.status_code} {answer.text}")
        return answer


class ChaosApi(GatewayApi):
    """The calls of operators and companion apps, over such lines."""

    def __init__(self, ports: Sequence[int], key: str, ledger: Ledger, rng: random.Random) -> None:
        super().__init__(f"http://127.0.0.1:{ports[0]}", key)
        self._transport = RetryingTransport(ports, ledger, rng)

    def _get_client(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = httpx.AsyncClient(timeout=5.0, transport=self._transport)
        return self._client


class Operator:
    """Has one device in hand: brings it into the fleet again and again, and does to it what operators do."""

    def __init__(self, device: SimulatedDevice, api: ChaosApi, ledger: Ledger, rng: random.Random) -> None:
        self._device = device
        self._api = api
        self._ledger = ledger
        self._rng = rng
        self._device_id = ""

    async def run(self) -> None:
        """Work until cancelled; what is refused or not answered is tried again in the next turn."""
        while True:
            with contextlib.suppress(SimulatorError):
                await self._turn()
            await asyncio.sleep(self._rng.uniform(0, _LONGEST_PAUSE_SECONDS))

    async def _turn(self) -> None:
        binding = self._device.binding
        if binding is None:
            await self.pair()
            return
        self._device_id = binding.device_id
        shown = await self._api.call("GET", f"/v1/devices/{binding.device_id}")
        if shown["binding_generation"] == binding.generation and shown["status"] == "bound":
            await self._do_something()
        elif await self._open_reset() is None:
            await reset_by_hand(self._device)  # its token opens nothing any more
        else:
            await self._while_a_reset_is_open()

    async def pair(self) -> None:
        """Bind the device, whatever the registry thinks that it is."""
        user = f"eu_{self._rng.randrange(10**9)}"
        try:
            binding = await self._device.provision(end_user_id=user, supersede_reset=True)
        except ApiError as error:
            if error.code != "device_already_bound":
                raise
            await self._post("unbind")  # the answer to a bind was lost, and the token with it
            return
        self._device_id = binding.device_id
        self._ledger.tokens.append(Token(binding.device_id, binding.generation, binding.device_token))

    async def _do_something(self) -> None:
        actions = (self._reset, self._unbind, self._record, self._delete)
        [action] = self._rng.choices(actions, weights=(6, 1, 2, 1))
        await action()

    async def _while_a_reset_is_open(self) -> None:
        [action] = self._rng.choices((self._reset, self._cancel, self._wait), weights=(2, 1, 7))
        await action()

    async def _reset(self) -> None:
        shown = await self._post("reset")
        self._ledger.resets.add((shown["id"], shown["binding_generation"]))

    async def _unbind(self) -> None:
        await self._post("unbind")

    async def _record(self) -> None:
        await self._post("commands", {"type": self._rng.choice(("start_recording", "stop_recording"))})

    async def _cancel(self) -> None:
        command = await self._open_reset()
        if command is not None:
            await self._post(f"commands/{command['id']}/cancel")

    async def _delete(self) -> None:
        with contextlib.suppress(SimulatorError):
            await self._api.call("DELETE", f"/v1/devices/{self._device_id}")
        await self._post("restore")

    async def _wait(self) -> None:
        """Let the device have its time."""

    async def _open_reset(self) -> dict[str, Any] | None:
        listed = await self._api.call("GET", f"/v1/devices/{self._device_id}/commands")
        found = (each for each in listed["data"] if each["type"] == RESET and each["status"] in OPEN)
        return next(found, None)

    async def _post(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        return await self._api.call("POST", f"/v1/devices/{self._device_id or await self._id()}/{path}", body)

    async def _id(self) -> str:
        listed = await self._api.call("GET", f"/v1/devices?serial_number={self._device.serial}")
        return str(listed["data"][0]["id"])


async def reset_by_hand(device: SimulatedDevice) -> None:
    """The reset button, held down while the device is switched on: what it was paired with is gone."""

    def wipe() -> None:
        for name in WIPED_BY_A_RESET:
            device.flash.erase(Area.WIPED, name)

    await device.cut_power(wipe)
