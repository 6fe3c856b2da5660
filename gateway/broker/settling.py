"""Concurrent attempts on many sessions. One that cannot be cut delays no other one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import structlog

from gateway.broker.clients import BrokerClient
from gateway.errors import UnavailableError

log = structlog.get_logger()

AT_ONCE: Final = 16
RETRIED_AT_ONCE: Final = 4
PAUSE_SECONDS: Final = 0.1
"""How long a failed attempt keeps its place among the retried ones. It bounds the calls to a broken API."""

Attempt = Callable[[], Awaitable[bool]]
"""Cuts what has to be cut of a session and returns whether that is all; raises UnavailableError when it must be
retried."""


class Settling:
    """Runs at most one attempt per client at a time. Attempts that failed before have separate places."""

    def __init__(self) -> None:
        self._running: dict[BrokerClient, asyncio.Task[bool]] = {}
        self._failed: dict[BrokerClient, str] = {}
        self._first, self._again = asyncio.Semaphore(AT_ONCE), asyncio.Semaphore(RETRIED_AT_ONCE)

    @property
    def trouble(self) -> str | None:
        """Return why sessions are not cut, and how many, or None when none is left."""
        if not self._failed:
            return None
        count, reason = len(self._failed), next(iter(self._failed.values()))
        return f"{count} session{'' if count == 1 else 's'} could not be cut: {reason}"

    async def settled(self, wanted: Mapping[BrokerClient, Attempt], seconds: float) -> set[BrokerClient]:
        """Attempt each of them. Return those that are settled within so many seconds; the others go on meanwhile."""
        for client, attempt in wanted.items():
            if client not in self._running:
                self._running[client] = asyncio.create_task(self._attempt(client, attempt), name=f"cut {client}")
        tasks = [self._running[client] for client in wanted]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        return {client for client in wanted if self._is_settled(client)}

    def stop(self) -> None:
        """Cancel every attempt."""
        for task in self._running.values():
            task.cancel()
        self._running.clear()

    def _is_settled(self, client: BrokerClient) -> bool:
        if not self._running[client].done():
            return False
        return self._running.pop(client).result()

    async def _attempt(self, client: BrokerClient, attempt: Attempt) -> bool:
        async with self._again if client in self._failed else self._first:
            try:
                settled = await attempt()
            except UnavailableError as error:
                self._fail(client, error.message)
            except Exception as error:  # a bug of ours: this session stays to be cut, the others go on
                log.exception("broker.session_not_cut", client_id=client.client_id)
                self._failed[client] = repr(error)
            else:
                self._failed.pop(client, None)
                return settled
        async with self._again:
            await asyncio.sleep(PAUSE_SECONDS)
        return False

    def _fail(self, client: BrokerClient, reason: str) -> None:
        if self._failed.get(client) != reason:
            log.error("broker.session_not_cut", client_id=client.client_id, reason=reason)
        self._failed[client] = reason
