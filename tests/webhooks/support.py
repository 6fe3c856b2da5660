"""The gateway's worker of webhooks beside the API of a test, and time that passes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.webhooks.sender import WebhookSender
from gateway.webhooks.worker import WebhookWorker
from tests.http.support import Api


@asynccontextmanager
async def delivering(api: Api, sender: WebhookSender | None = None, *, most_at_once: int = 10) -> AsyncIterator[None]:
    """The gateway's worker at work."""
    wakeups = api.services.wakeups
    worker = WebhookWorker(api.store, wakeups, sender or api.services.sender, most_at_once=most_at_once)
    task = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled(), "the worker had ended before"


def later(api: Api, seconds: float) -> None:
    """Time passes."""
    api.clock.ahead += round(seconds * 1_000)
    api.services.wakeups.notify_events()
