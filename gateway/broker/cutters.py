"""How a live session is cut at a broker that has an API for it, with all that waits for it there.

RabbitMQ was run; what EMQX and VerneMQ are asked follows their documentation (docs/other-brokers.md).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import httpx

from gateway.broker_api import BrokerApi
from gateway.errors import UnavailableError

SECONDS: Final = 5.0
"""What one call may take."""
PAGE: Final = 500
_LOOKS: Final = 50
_LOOK_SECONDS: Final = 0.05
_GONE: Final = frozenset({httpx.codes.OK, httpx.codes.NO_CONTENT, httpx.codes.NOT_FOUND})


class Cutter(Protocol):
    """What a broker's API is needed for; each call raises UnavailableError when it fails."""

    async def cut(self, device_id: str) -> None:
        """Close its session, and drop its subscriptions and what is queued for it; nothing if there is none."""

    async def connected(self) -> set[str]:
        """The client ids of those that are connected."""


class Api:
    """Calls to a broker's API. A connection each: they are rare, and one that was kept open may be closed by now."""

    def __init__(self, api: BrokerApi, tls: ssl.SSLContext | None) -> None:
        self._api = api
        self._verify = tls or api.scheme == "https"
        self._auth = httpx.BasicAuth(api.username.get_secret_value(), api.password.get_secret_value())

    async def call(self, method: str, path: str, params: Mapping[str, str] | None = None) -> httpx.Response:
        """The answer, whatever its status.

        Raises:
            UnavailableError: there is none.
        """
        try:
            async with httpx.AsyncClient(
                base_url=self._api.base_url, auth=self._auth, verify=self._verify, timeout=SECONDS, trust_env=False
            ) as client:
                return await client.request(method, path, params=params)
        except httpx.HTTPError as error:
            raise UnavailableError(f"{self._api} does not answer ({error!r}). Check broker_api_url.") from error

    async def gone(self, method: str, path: str) -> None:
        """Have something gone, if it was there.

        Raises:
            UnavailableError: the broker refused, or does not answer.
        """
        self.check(await self.call(method, path), _GONE)

    async def json(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        """What is at this path.

        Raises:
            UnavailableError: the broker refused, does not answer, or not in JSON.
        """
        answer = await self.call("GET", path, params)
        self.check(answer, frozenset({httpx.codes.OK}))
        try:
            return answer.json()
        except ValueError as error:
            raise UnavailableError(f"{self._api} does not answer in JSON. Check broker_api_url.") from error

    def check(self, answer: httpx.Response, good: frozenset[int]) -> None:
        """Raises UnavailableError for any other status."""
        if answer.status_code not in good:
            raise UnavailableError(
                f"{self._api} answered {answer.request.method} {answer.url.path} with {answer.status_code}. Check user "
                "and rights in broker_api_url."
            )


class RabbitMqCutter:
    """RabbitMQ's management plugin; its user needs the tag ``administrator`` and may configure the devices' queues."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def cut(self, device_id: str) -> None:
        """Close its connections, see that they are closed, and delete the queues that are its subscriptions."""
        connections = f"/api/connections/username/{device_id}"
        await self._api.gone("DELETE", connections)
        for _ in range(_LOOKS):
            if not await self._api.json(connections):
                break
            await asyncio.sleep(_LOOK_SECONDS)
        else:
            raise UnavailableError(f"RabbitMQ does not close the connection of {device_id}.")
        for qos in (0, 1):
            await self._api.gone("DELETE", f"/api/queues/%2F/mqtt-subscription-{device_id}qos{qos}")

    async def connected(self) -> set[str]:
        """By user name, which is a device's client id."""
        return await _pages(self._page)

    async def _page(self, number: int) -> tuple[set[str], bool]:
        wanted = {"columns": "user", "page": str(number), "page_size": str(PAGE)}
        answer = await self._api.json("/api/connections", wanted)
        return {str(each.get("user")) for each in answer["items"]}, number < answer["page_count"]


class EmqxCutter:
    """EMQX 5's REST API with an API key: kicking a client out ends its session too."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def cut(self, device_id: str) -> None:
        """Kick it out."""
        await self._api.gone("DELETE", f"/api/v5/clients/{device_id}")

    async def connected(self) -> set[str]:
        """By client id."""
        return await _pages(self._page)

    async def _page(self, number: int) -> tuple[set[str], bool]:
        answer = await self._api.json("/api/v5/clients", {"page": str(number), "limit": str(PAGE)})
        return {str(each["clientid"]) for each in answer["data"]}, len(answer["data"]) == PAGE


class VerneMqCutter:
    """VerneMQ's HTTP API, which is ``vmq-admin`` by URL, with an API key as user name."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def cut(self, device_id: str) -> None:
        """Disconnect it, session and all."""
        await self._api.gone("GET", f"/api/v1/session/disconnect?client-id={device_id}&--cleanup")

    async def connected(self) -> set[str]:
        """By client id."""
        answer = await self._api.json("/api/v1/session/show?--client_id&--limit=1000000")
        return {str(each["client_id"]) for each in answer["table"]}


_CUTTERS: Final[Mapping[str, Callable[[Api], Cutter]]] = {
    "rabbitmq": RabbitMqCutter,
    "emqx": EmqxCutter,
    "vernemq": VerneMqCutter,
}


def cutter_of(api: BrokerApi, tls: ssl.SSLContext | None) -> Cutter:
    """The one for this kind of broker; ``tls`` verifies its certificate, where it has one."""
    return _CUTTERS[api.kind](Api(api, tls))


async def _pages(page: Callable[[int], Any]) -> set[str]:
    found, number, more = set[str](), 1, True
    while more:
        names, more = await page(number)
        found |= names
        number += 1
    return found
