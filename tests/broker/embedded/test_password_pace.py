"""Who tries passwords at the embedded broker waits, and the devices behind the same address do not."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Self

import pytest

from gateway.broker.access_rules import Role
from gateway.broker.embedded.password_pace import HELD, PER_SECOND, SAVED_SECONDS, SAVED_SECONDS_OF_NAME
from gateway.broker.embedded.server import ClientIdentity, EmbeddedBroker
from gateway.broker.embedded.session import ClientConnection
from tests.support.wire import ACCEPTED, CLOSED, NOT_AUTHORISED, Wire

UNAVAILABLE = 3
GOOD, OTHER = "dev_A", "dev_B"
PASSWORD = "right"
SAVED = PER_SECOND * SAVED_SECONDS


class CountingBroker:
    """A broker that counts which names were looked up."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.broker = EmbeddedBroker(authenticate=self._authenticate, is_known=self._is_known)

    async def _is_known(self, name: str) -> bool:
        return name in (GOOD, OTHER)

    async def _authenticate(self, _: str, username: str | None, password: str | None) -> ClientIdentity | None:
        self.asked[username or ""] += 1
        good = username in (GOOD, OTHER) and password == PASSWORD
        return ClientIdentity(Role.DEVICE, username or "", 1) if good else None

    async def tries(self, name: str, password: str) -> int:
        """What the broker answers."""
        async with Wire.open(self.broker.host, self.broker.port) as client:
            return await client.connect(name, name, password)

    async def fail(self) -> None:
        """Use the budget of this address up."""
        answers = await asyncio.gather(*(self.tries(f"dev_wrong{number}", "wrong") for number in range(SAVED)))
        assert set(answers) == {NOT_AUTHORISED}


@pytest.fixture
async def site() -> AsyncIterator[CountingBroker]:
    """One that runs."""
    made = CountingBroker()
    async with made.broker:
        yield made


async def test_a_device_behind_a_failing_address_connects_at_once(site: CountingBroker) -> None:
    """Its name is known: it is answered while those that try passwords still wait, unread."""
    await site.fail()
    waiting = [asyncio.create_task(site.tries(f"dev_more{number}", "wrong")) for number in range(2 * SAVED)]
    await asyncio.sleep(0)
    assert await site.tries(GOOD, PASSWORD) == ACCEPTED
    assert not all(each.done() for each in waiting), "the device came in behind them"
    answers = Counter(await asyncio.gather(*waiting))
    assert answers[UNAVAILABLE] >= SAVED
    looked_up = sum(count for name, count in site.asked.items() if name.startswith("dev_more"))
    assert looked_up == 2 * SAVED - answers[UNAVAILABLE] < SAVED, "the rest cost no look-up"


async def test_password_guesses_for_a_known_name_are_delayed_too(site: CountingBroker) -> None:
    """A client that knows a device's id has a few tries at once, then one a second; other devices are admitted."""
    await site.fail()
    tries = 4 * SAVED_SECONDS_OF_NAME
    answers = Counter(await asyncio.gather(*(site.tries(OTHER, "wrong") for _ in range(tries))))
    assert site.asked[OTHER] == answers[NOT_AUTHORISED]
    assert answers[UNAVAILABLE] >= SAVED_SECONDS_OF_NAME
    assert await site.tries(GOOD, PASSWORD) == ACCEPTED


async def test_a_bounded_number_of_delayed_refusals_wait(site: CountingBroker) -> None:
    """For one more the oldest is closed without an answer."""
    await site.fail()
    beyond = 2 * SAVED
    answers = Counter(await asyncio.gather(*(site.tries(f"dev_more{n}", "wrong") for n in range(HELD + beyond))))
    assert answers[CLOSED] >= beyond - SAVED
    assert answers[CLOSED] + answers[UNAVAILABLE] + answers[NOT_AUTHORISED] == HELD + beyond
    async with contextlib.AsyncExitStack() as stack:
        for name in (GOOD, OTHER):
            client = await stack.enter_async_context(Wire.open(site.broker.host, site.broker.port))
            assert await client.connect(name, name, PASSWORD) == ACCEPTED


async def test_a_few_failures_are_answered_without_delay(site: CountingBroker) -> None:
    """A device with an old token hears at once that it is refused, and comes in with a new one."""
    for _ in range(SAVED // 2):
        assert await site.tries(GOOD, "old") == NOT_AUTHORISED
    assert await site.tries(GOOD, PASSWORD) == ACCEPTED
    assert site.asked[GOOD] == SAVED // 2 + 1


@pytest.mark.parametrize("turns", range(6))
async def test_a_delayed_connection_can_be_aborted(turns: int) -> None:
    """The evicted connection may be at the end of its time limit: the client that follows must not fail by that."""
    async with AcceptedSocket() as served:
        connection = await served.connection()

        async def wait() -> None:
            async with connection.patience(0):
                await asyncio.Event().wait()

        waiting = asyncio.create_task(wait())
        for _ in range(turns):
            await asyncio.sleep(0)
        connection.abort()
        with pytest.raises(TimeoutError):
            await waiting
        assert not connection.open


class AcceptedSocket:
    """An accepted socket, as the broker holds it."""

    async def __aenter__(self) -> Self:
        self._opened: asyncio.Queue[ClientConnection] = asyncio.Queue()
        self._server = await asyncio.start_server(
            lambda reader, writer: self._opened.put_nowait(ClientConnection(reader, writer)), "127.0.0.1", 0
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._client.close()
        self._server.close()

    async def connection(self) -> ClientConnection:
        """The broker's end of a new one."""
        _, self._client = await asyncio.open_connection(*self._server.sockets[0].getsockname()[:2])
        return await self._opened.get()
