"""The gateway's worker of webhooks beside the API of a test, and time that passes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.webhooks.sender import WebhookSender
from gateway.webhooks.worker import WebhookWorker
from tests.http.support import Api, Json, body
from tests.support.wait import eventually

GUARD_SECONDS = 30


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


def advance_clock(api: Api, seconds: float) -> None:
    """Time passes."""
    api.clock.ahead_ms += round(seconds * 1_000)
    api.services.wakeups.notify_events()


async def create_webhook(api: Api, url: str, *types: str) -> Json:
    """A webhook there; without types for every one."""
    return body(await api.back_end.post("/v1/webhooks", json={"url": url, "events": list(types) or ["*"]}), 201)


async def deliveries(api: Api, webhook: Json, **query: str) -> list[Json]:
    """Those of the webhook, of the newest events first."""
    found: list[Json] = body(await api.back_end.get(f"/v1/webhooks/{webhook['id']}/deliveries", params=query), 200)[
        "data"
    ]
    return found


async def wait_for_delivery(api: Api, webhook: Json, status: str, attempts: int = 1) -> Json:
    """The newest delivery, once it has this status after so many tries."""

    async def there() -> Json | None:
        found = await deliveries(api, webhook)
        return found[0] if found and (found[0]["status"], found[0]["attempts"]) == (status, attempts) else None

    delivery = await eventually(there, f"the newest delivery is {status} after {attempts} tries")
    assert delivery
    return delivery


async def wait_for_replay(api: Api, webhook: Json) -> Json:
    """What a test of the webhook answers."""
    return body(await api.back_end.post(f"/v1/webhooks/{webhook['id']}/test"), 200)
