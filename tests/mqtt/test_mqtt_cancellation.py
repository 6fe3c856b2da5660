"""A cancellation that meets an answer is heeded, on every Python that we run on."""

import asyncio

import pytest

from gateway.mqtt.cancellation import heed_cancellation


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
