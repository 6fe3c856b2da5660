"""Disconnection of clients through a broker's management API, with what is queued for them there.

RabbitMQ was run. The calls to EMQX and VerneMQ follow their documentation (docs/other-brokers.md).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import httpx

from gateway.broker.clients import BrokerClient
from gateway.core.received_json import parse_json
from gateway.errors import UnavailableError
from gateway.settings.broker_api import BrokerApi

SECONDS: Final = 5.0
"""Time limit of one call."""
PAGE: Final = 500
_LOOKS: Final = 50
_LOOK_SECONDS: Final = 0.05
_PAST_THE_LAST: Final = {"items": [], "page_count": 0}
"""RabbitMQ refuses a page after the last one: connections were closed since the page before."""
_GONE: Final = frozenset({httpx.codes.OK, httpx.codes.NO_CONTENT, httpx.codes.NOT_FOUND})


class ClientDisconnector(Protocol):
    """The calls to a broker's API; each raises UnavailableError when it fails."""

    async def cut(self, client: BrokerClient) -> None:
        """Close the client's session, and drop its subscriptions and queue; do nothing if it has none."""

    def connected(self) -> AsyncIterator[Sequence[BrokerClient]]:
        """Yield the connected clients, a page at a time.

        A client may be on no page when others come or go meanwhile.
        """


class ManagementApi:
    """Calls to a broker's API, each over a new connection: they are rare, and a kept one may be closed by then."""

    def __init__(self, api: BrokerApi, tls: ssl.SSLContext | None) -> None:
        self._api = api
        self._verify = tls or api.scheme == "https"
        self._auth = httpx.BasicAuth(api.username.get_secret_value(), api.password.get_secret_value())

    async def call(self, method: str, path: str, params: Mapping[str, str] | None = None) -> httpx.Response:
        """Return the answer, whatever its status.

        Raises:
            UnavailableError: the broker does not answer.
        """
        try:
            async with httpx.AsyncClient(
                base_url=self._api.base_url, auth=self._auth, verify=self._verify, timeout=SECONDS, trust_env=False
            ) as client:
                return await client.request(method, path, params=params)
        except httpx.HTTPError as error:
            raise UnavailableError(f"{self._api} does not answer ({error!r}). Check broker_api_url.") from error

    async def gone(self, method: str, path: str) -> None:
        """Delete something, if it exists.

        Raises:
            UnavailableError: the broker refused, or does not answer.
        """
        self.check(await self.call(method, path), _GONE)

    async def json(self, path: str, params: Mapping[str, str] | None = None, *, missing: Any = None) -> Any:
        """Return the JSON at this path, or ``missing``, where it is given and the broker answers 400.

        Raises:
            UnavailableError: the broker refused, does not answer, or not in JSON.
        """
        answer = await self.call("GET", path, params)
        if missing is not None and answer.status_code == httpx.codes.BAD_REQUEST:
            return missing
        self.check(answer, frozenset({httpx.codes.OK}))
        try:
            return parse_json(answer.content)
        except ValueError as error:
            raise UnavailableError(f"{self._api} does not answer in JSON. Check broker_api_url.") from error

    def check(self, answer: httpx.Response, good: frozenset[int]) -> None:
        """Check the status of an answer.

        Raises:
            UnavailableError: it is not one of the good ones.
        """
        if answer.status_code not in good:
            raise UnavailableError(
                f"{self._api} answered {answer.request.method} {answer.url.path} with {answer.status_code}. Check user "
                "and rights in broker_api_url."
            )


class RabbitMqDisconnector:
    """RabbitMQ's management plugin.

    Its user needs the tag ``administrator``, and configure rights on the clients' queues.
    """

    def __init__(self, api: ManagementApi) -> None:
        self._api = api

    async def cut(self, client: BrokerClient) -> None:
        """Close the connections of its user, check that they are closed, and delete the queues of its subscriptions.

        RabbitMQ lists a connection under its user at once, under its client id seconds later. Other clients of an
        integrator reconnect.
        """
        connections = f"/api/connections/username/{client.username}"
        await self._api.gone("DELETE", connections)
        for _ in range(_LOOKS):
            if not await self._api.json(connections):
                break
            await asyncio.sleep(_LOOK_SECONDS)
        else:
            raise UnavailableError(f"RabbitMQ does not close the connection of {client.username}.")
        for qos in (0, 1):
            await self._api.gone("DELETE", f"/api/queues/%2F/mqtt-subscription-{client.client_id}qos{qos}")

    def connected(self) -> AsyncIterator[Sequence[BrokerClient]]:
        """Yield the clients that the management plugin lists."""
        return _pages(self._page)

    async def _page(self, number: int) -> tuple[list[BrokerClient], bool]:
        wanted = {"columns": "user,variable_map.client_id", "page": str(number), "page_size": str(PAGE)}
        answer = await self._api.json("/api/connections", wanted, missing=None if number == 1 else _PAST_THE_LAST)
        return [_of_rabbitmq(each) for each in answer["items"]], number < answer["page_count"]


class EmqxDisconnector:
    """EMQX 5's REST API with an API key. Kicking a client out ends its session too."""

    def __init__(self, api: ManagementApi) -> None:
        self._api = api

    async def cut(self, client: BrokerClient) -> None:
        """Kick it out."""
        await self._api.gone("DELETE", f"/api/v5/clients/{client.client_id}")

    def connected(self) -> AsyncIterator[Sequence[BrokerClient]]:
        """Yield the clients."""
        return _pages(self._page)

    async def _page(self, number: int) -> tuple[list[BrokerClient], bool]:
        answer = await self._api.json("/api/v5/clients", {"page": str(number), "limit": str(PAGE)})
        found = [BrokerClient(str(each["clientid"]), str(each["username"])) for each in answer["data"]]
        return found, len(found) == PAGE


class VerneMqDisconnector:
    """VerneMQ's HTTP API, which is ``vmq-admin`` by URL, with an API key as user name."""

    def __init__(self, api: ManagementApi) -> None:
        self._api = api

    async def cut(self, client: BrokerClient) -> None:
        """Disconnect it, session and all."""
        await self._api.gone("GET", f"/api/v1/session/disconnect?client-id={client.client_id}&--cleanup")

    async def connected(self) -> AsyncIterator[Sequence[BrokerClient]]:
        """Yield the clients. VerneMQ has no pages, so all of them are held in one answer meanwhile."""
        answer = await self._api.json("/api/v1/session/show?--client_id&--user&--limit=1000000")
        for first in range(0, len(answer["table"]), PAGE):
            page = answer["table"][first : first + PAGE]
            yield [BrokerClient(str(each["client_id"]), str(each["user"])) for each in page]


_CUTTERS: Final[Mapping[str, Callable[[ManagementApi], ClientDisconnector]]] = {
    "rabbitmq": RabbitMqDisconnector,
    "emqx": EmqxDisconnector,
    "vernemq": VerneMqDisconnector,
}


def disconnector_of(api: BrokerApi, tls: ssl.SSLContext | None) -> ClientDisconnector:
    """Return the one for this kind of broker. ``tls`` verifies its certificate, where it has one."""
    return _CUTTERS[api.kind](ManagementApi(api, tls))


def _of_rabbitmq(connection: Mapping[str, Any]) -> BrokerClient:
    """Return the client of a connection. One that does not speak MQTT has no client id."""
    user = str(connection.get("user"))
    return BrokerClient(str(connection.get("variable_map", {}).get("client_id", user)), user)


async def _pages(
    page: Callable[[int], Awaitable[tuple[Sequence[BrokerClient], bool]]],
) -> AsyncIterator[Sequence[BrokerClient]]:
    number, has_more = 1, True
    while has_more:
        clients, has_more = await page(number)
        yield clients
        number += 1
