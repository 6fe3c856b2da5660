"""Listener interface of a running store."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.store.measurements import Measure


class StoreListener:
    """Called in the event loop after a commit, before its results are handed out. By default it does nothing."""

    def notify_outbox(self, kinds: frozenset[str]) -> None:
        """Note that rows of these kinds were written into the outbox."""

    def notify_events(self) -> None:
        """Note that events were written, or that their receivers changed."""

    def notify_measured(self, samples: list[Measure]) -> None:
        """Note what the transaction did, for the metrics. The other calls come first: devices wait for those."""
