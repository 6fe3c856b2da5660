"""A cancellation that meets an answer is heeded, on every Python that we run on."""

import asyncio
import logging

import aiomqtt
import pytest

from gateway.mqtt.v3.cancellation import heed_cancellation
from gateway.mqtt.v3.session import open_session


async def _waits(answer: asyncio.Future[str]) -> str:
    told = await asyncio.wait_for(answer, timeout=20)
    heed_cancellation()
    return told


async def test_a_cancellation_in_the_moment_of_the_answer() -> None:
    """The answer comes and the task is cancelled before it has seen it: it ends as cancelled, with no answer."""
    answer = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(_waits(answer))
    await asyncio.sleep(0)
    answer.set_result("hello")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_was_dealt_with_is_over() -> None:
    """A time limit that has struck, and was taken note of, cancels nothing that comes after it."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await asyncio.Event().wait()
    heed_cancellation()


async def test_an_answer_that_nobody_waits_for_any_more_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """As when the gateway stops while it gives up a subscription: aiomqtt would log the UNSUBACK with a stack trace."""
    assert open_session.__module__ == "gateway.mqtt.v3.session", "with the link comes its filter"
    client = aiomqtt.Client("127.0.0.1")
    paho = client._client  # noqa: SLF001 - the broker's answer is given to it here
    client._on_unsubscribe(paho, None, 24, [])  # noqa: SLF001
    assert not caplog.records
    logging.getLogger("mqtt").error("something else")
    assert [record.message for record in caplog.records] == ["something else"]
