"""A cancellation that meets an answer is heeded, on every Python that we run on."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from gateway.mqtt.v3.cancellation import raise_if_cancelled
from gateway.mqtt.v3.client import QuietClient
from gateway.mqtt.v3.session import open_session
from tests.mqtt.support import open_testbed
from tests.support.wait import eventually

CALLS: dict[str, Callable[[aiomqtt.Client], Awaitable[object]]] = {
    "_on_subscribe": lambda client: client.subscribe("gateways/marks", 1),
    "_on_unsubscribe": lambda client: client.unsubscribe("gateways/marks"),
    "_on_publish": lambda client: client.publish("gateways/marks", b"", 1),
}


async def _waits(answer: asyncio.Future[str]) -> str:
    told = await asyncio.wait_for(answer, timeout=60)
    raise_if_cancelled()
    return told


async def test_a_cancellation_at_the_moment_of_the_answer_is_raised() -> None:
    """The answer comes and the task is cancelled before it has seen it: it ends as cancelled, with no answer."""
    answer = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(_waits(answer))
    await asyncio.sleep(0)
    answer.set_result("hello")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("answered", ["_on_connect", *CALLS, "_on_disconnect"])
async def test_a_stop_at_the_moment_of_an_answer_of_the_broker_is_heeded(
    answered: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker's answer to any packet has just been read when the task is cancelled: the task goes no further."""
    told = getattr(QuietClient, answered)
    reached: list[str] = []

    def then_cancelled(self: QuietClient, *facts: Any) -> None:
        told(self, *facts)
        task.cancel()

    async def connected() -> None:
        client = QuietClient("127.0.0.1", testbed.broker.port, username="gateway", password=password)
        async with client:
            reached.append("_on_connect")
            for name, call in CALLS.items():
                await call(client)
                reached.append(name)
        reached.append("_on_disconnect")

    async with open_testbed("embedded", tmp_path) as testbed:
        password = testbed.broker.gateway_password
        monkeypatch.setattr(QuietClient, answered, then_cancelled)
        task = asyncio.create_task(connected())
        with pytest.raises(asyncio.CancelledError):
            await task
    assert answered not in reached


async def test_a_handled_cancellation_is_not_raised_again() -> None:
    """A time limit that has struck, and was taken note of, cancels nothing that comes after it."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await asyncio.Event().wait()
    raise_if_cancelled()


async def test_an_answer_without_a_waiter_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """As when the gateway stops while it gives up a subscription: aiomqtt would log the UNSUBACK with a stack trace."""
    assert open_session.__module__ == "gateway.mqtt.v3.session", "with the link comes its filter"
    client = aiomqtt.Client("127.0.0.1")
    paho = client._client  # noqa: SLF001 - the broker's answer is given to it here
    client._on_unsubscribe(paho, None, 24, [])  # noqa: SLF001
    assert not caplog.records
    logging.getLogger("mqtt").error("something else")
    assert [record.message for record in caplog.records] == ["something else"]


async def test_a_connection_that_is_lost_after_its_connect_was_given_up_is_no_error() -> None:
    """A broker accepts, says nothing, and goes away: the event loop has nothing to complain of."""
    problems: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    came, let_go = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        came.set()
        await let_go.wait()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        client = QuietClient("127.0.0.1", server.sockets[0].getsockname()[1])
        connect = asyncio.create_task(client.__aenter__())
        await came.wait()
        client._connected.cancel()  # noqa: SLF001 - as a cancellation does while the answer is awaited
        with pytest.raises(asyncio.CancelledError):
            await connect
        let_go.set()
        await eventually(lambda: client._client.socket() is None, "the client sees it")  # noqa: SLF001
    assert problems == []
