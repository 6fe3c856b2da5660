"""Attempts on many sessions at once, each by itself: one that cannot be cut keeps no other one waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import structlog

from gateway.broker.clients import Client
from gateway.errors import UnavailableError

log = structlog.get_logger()

AT_ONCE: Final = 16
RETRIED_AT_ONCE: Final = 4
PAUSE_SECONDS: Final = 0.1
"""How long a failed attempt keeps its place among those that are retried: a bound on the calls to a broken API."""

Attempt = Callable[[], Awaitable[bool]]
"""Cut what has to be cut of a session; whether that is all. Raises UnavailableError when it cannot be done now."""


class Settling:
    """At most one attempt per client runs at a time; those that failed before have places of their own."""

    def __init__(self) -> None:
        self._running: dict[Client, asyncio.Task[bool]] = {}
        self._failed: dict[Client, str] = {}
        self._first, self._again = asyncio.Semaphore(AT_ONCE), asyncio.Semaphore(RETRIED_AT_ONCE)

    @property
    def trouble(self) -> str | None:
        """Why sessions are not cut, with how many they are; ``None`` when none is left."""
        if not self._failed:
            return None
        count, reason = len(self._failed), next(iter(self._failed.values()))
        return f"{count} session{'' if count == 1 else 's'} could not be cut: {reason}"

    async def settled(self, wanted: Mapping[Client, Attempt], seconds: float) -> set[Client]:
        """Attempt each of them; those that are settled after so many seconds at most. The others go on meanwhile."""
        for client, attempt in wanted.items():
            if client not in self._running:
                self._running[client] = asyncio.create_task(self._attempt(client, attempt), name=f"cut {client}")
        tasks = [self._running[client] for client in wanted]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        return {client for client in wanted if self._is_settled(client)}

    def stop(self) -> None:
        """End every attempt."""
        for task in self._running.values():
            task.cancel()
        self._running.clear()

    def _is_settled(self, client: Client) -> bool:
        if not self._running[client].done():
            return False
        return self._running.pop(client).result()

    async def _attempt(self, client: Client, attempt: Attempt) -> bool:
        async with self._again if client in self._failed else self._first:
            try:
                settled = await attempt()
            except UnavailableError as error:
                self._fail(client, error.message)
            except Exception as error:  # a bug of ours: this session stays to be cut, and the others are
                log.exception("broker.session_not_cut", client_id=client.client_id)
                self._failed[client] = repr(error)
            else:
                self._failed.pop(client, None)
                return settled
        async with self._again:
            await asyncio.sleep(PAUSE_SECONDS)
        return False

    def _fail(self, client: Client, reason: str) -> None:
        if self._failed.get(client) != reason:
            log.error("broker.session_not_cut", client_id=client.client_id, reason=reason)
        self._failed[client] = reason
