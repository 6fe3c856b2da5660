"""Following of events: from the stream of a gateway, or by polling the data directory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from gateway.cli import output
from gateway.cli.api import PAGE, ApiClient, Json, at
from gateway.cli.lazy_loading import lazily
from gateway.core import ids
from gateway.core.backoff import Backoff, Pauses
from gateway.core.received_json import parse_json
from gateway.errors import GatewayError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    import httpx
else:
    httpx = lazily("httpx")

LOOK_SECONDS: Final = 0.25
BEFORE_ALL: Final = f"{ids.EVENT}0"
"""Sorts before every event: a reader that has seen no event misses none."""
_PASSING: Final = ("service_unavailable", "rate_limit_exceeded")
_PAUSES: Final = Pauses(first_seconds=0.5, longest_seconds=10.0)


def passes(error: GatewayError) -> bool:
    """Return whether a retry may succeed: no gateway answers, it is stopping, or the key is too busy."""
    return isinstance(error, UnavailableError) or error.code in _PASSING


async def follow(
    api: ApiClient, last: str | None, only: Mapping[str, str | None], *, lost: Callable[[str], None] = output.note
) -> AsyncIterator[Json]:
    """Yield the events after ``last`` (None: all), the oldest first, without an end.

    ``only`` narrows them as the API's own parameters do. ``lost`` is called with the reason when the stream is lost; it
    is resumed by itself.

    Raises:
        GatewayError: the gateway refuses, for example because the API key was revoked.
    """
    source = _streamed(api, last or BEFORE_ALL, only, lost) if api.remote else _looked_up(api, last or BEFORE_ALL, only)
    async for event in source:
        yield event


async def _streamed(
    api: ApiClient, last: str, only: Mapping[str, str | None], lost: Callable[[str], None]
) -> AsyncIterator[Json]:
    """Yield from the stream, which is resumed where it was lost."""
    backoff, clock = Backoff(_PAUSES), asyncio.get_running_loop().time
    while True:
        began = clock()
        try:
            async for line in api.lines(at("events", "stream"), {"Last-Event-ID": last}, **only):
                if line.startswith("data: "):
                    event: Json = parse_json(line.removeprefix("data: "))
                    last = event["id"]
                    yield event
        except httpx.TransportError as error:
            lost(f"The stream was lost ({str(error) or type(error).__name__}); it is taken up again.")
        except GatewayError as error:
            if not passes(error):
                raise
            lost(error.message)
        await asyncio.sleep(backoff.pause(clock() - began))


async def _looked_up(api: ApiClient, last: str, only: Mapping[str, str | None]) -> AsyncIterator[Json]:
    while True:
        for event in await newest(api, None, last, **only):
            last = event["id"]
            yield event
        await asyncio.sleep(LOOK_SECONDS)


async def newest(api: ApiClient, limit: int | None, after: str | None, **only: Any) -> list[Json]:
    """Return the newest ``limit`` events, or all that came after one, the oldest first."""
    found: list[Json] = []
    cursor, more = None, True
    while more and (limit is None or len(found) < limit):
        page = await api.get(at("events"), limit=PAGE, cursor=cursor, **only)
        listed = [each["id"] for each in page["data"]]
        known = listed.index(after) if after in listed else None
        found += page["data"][:known]
        cursor, more = page["next_cursor"], page["has_more"] and known is None
    return found[:limit][::-1]
