"""A cancellation that meets an answer is heeded, on every Python that we run on."""

import asyncio
import logging

import aiomqtt
import pytest

from gateway.mqtt.v3.cancellation import raise_if_cancelled
from gateway.mqtt.v3.client import QuietClient
from gateway.mqtt.v3.session import open_session
from tests.support.wait import eventually


async def _waits(answer: asyncio.Future[str]) -> str:
    told = await asyncio.wait_for(answer, timeout=20)
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
