"""Live view of ``gateway top``: driven by the event stream, by polling now and then, and by keys."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console
from rich.live import Live

from gateway.cli import event_follow, keyboard, top_screen
from gateway.cli.api import PAGE, ApiClient, Json
from gateway.cli.fleet_view import EVENTS, ONLY, Glance, look, project_name
from gateway.errors import GatewayError
from gateway.models.devices import MAX_OFFSET

_BY_KEY: Final = dict(zip("anovbsr", ONLY, strict=True))
_LOOK_SECONDS: Final = 10.0
"""Poll interval: heartbeats make no events."""
_LEAST_SECONDS: Final = 2.0
_DRAW_SECONDS: Final = 0.5
_PAUSE_SECONDS: Final = 5.0


@dataclass
class LiveView:
    """The live view: what it shows, what it knows, and when it polls."""

    api: ApiClient
    only: str
    tags: tuple[str, ...] = ()
    offset: int = 0
    trouble: str | None = None
    over: bool = False
    due: float = 0.0
    """Time of the next poll, by the loop's clock."""
    looked: float = float("-inf")
    events: deque[Json] = field(default_factory=lambda: deque(maxlen=EVENTS))
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    console: Console = field(default_factory=lambda: Console(highlight=False))

    async def run(self) -> None:
        """Run until the user presses q.

        Raises:
            GatewayError: the API refuses, for example because the key was revoked.
        """
        self.project = await project_name(self.api)
        self.events.extend(await event_follow.newest(self.api, EVENTS, None))
        self.fleet = await self._look()
        with keyboard.keys(self._pressed), Live(console=self.console, screen=True, auto_refresh=False) as live:
            async with asyncio.TaskGroup() as group:
                follower = group.create_task(self._follow(), name="events")
                while not self.over:
                    await self._look_if_due()
                    live.update(top_screen.drawn(self._shown(), self.console.size), refresh=True)
                    await self._wait()
                follower.cancel()

    def _shown(self) -> top_screen.ShownDevice:
        return top_screen.ShownDevice(self.project, self.fleet, self.events, self.only, self.offset, self.trouble)

    def _pressed(self, key: str) -> None:
        rows = self._rows()
        if key in _BY_KEY:
            self.only, self.offset = _BY_KEY[key], 0
        elif key == " " and self.fleet.more:
            self.offset = min(self.offset + rows, MAX_OFFSET)
        elif key == "p":
            self.offset = max(0, self.offset - rows)
        self.over = self.over or key == "q"
        self.looked = float("-inf")
        self._wake()

    def _rows(self) -> int:
        return min(PAGE, top_screen.rows_for(self.console.size.height)[0])

    def _wake(self, trouble: str | None = None) -> None:
        self.trouble = trouble or self.trouble
        self.due = 0.0
        self.woken.set()

    async def _follow(self) -> None:
        async for event in event_follow.follow(
            self.api, self.events[-1]["id"] if self.events else None, {}, lost=self._wake
        ):
            self.events.append(event)
            self._wake()

    async def _look(self) -> Glance:
        return await look(self.api, self.only, tags=self.tags, offset=self.offset, limit=self._rows())

    async def _look_if_due(self) -> None:
        now = asyncio.get_running_loop().time()
        if now < max(self.due, self.looked + _LEAST_SECONDS):
            return
        self.due, self.looked = now + _LOOK_SECONDS, now
        try:
            self.fleet = await self._look()
            self.trouble = None
        except GatewayError as error:
            if not event_follow.passes(error):
                raise
            self.trouble, self.due = error.message, now + _PAUSE_SECONDS

    async def _wait(self) -> None:
        """Wait until something happened, or until relative times must be drawn again."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAW_SECONDS):
                await self.woken.wait()
        self.woken.clear()
