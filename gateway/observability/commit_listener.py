"""Reports of the store's commits, passed on to the workers that wait for them and to the metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.store import StoreListener

if TYPE_CHECKING:
    from gateway.observability.metrics import Metrics
    from gateway.store.measurements import Measure
    from gateway.store.wakeups import Wakeups


class CommitListener(StoreListener):
    """Wakes the workers, and counts."""

    def __init__(self, wakeups: Wakeups, metrics: Metrics) -> None:
        self._wakeups = wakeups
        self._metrics = metrics

    def notify_outbox(self, kinds: frozenset[str]) -> None:
        """Wake the workers of these kinds."""
        self._wakeups.notify_outbox(kinds)

    def notify_events(self) -> None:
        """Wake the workers of events."""
        self._wakeups.notify_events()

    def notify_measured(self, samples: list[Measure]) -> None:
        """Count what the transaction did."""
        self._metrics.take(samples)
