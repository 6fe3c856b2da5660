"""Batch: one transaction that stores many messages, and makes way for urgent writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.store.device_cache import DeviceCache

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.store.transaction import Tx


def _never() -> bool:
    return False


def _do_nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Batch:
    """The transaction of a batch, and the writer's contract with it.

    By default nothing interrupts it, and it begins with an empty cache.
    """

    tx: Tx
    devices: DeviceCache = field(default_factory=DeviceCache)
    """Device state that the writer keeps from one batch to the next."""
    should_stop: Callable[[], bool] = _never
    """Returns whether an urgent write waits. A batch that can be cut in two should then end."""
    yield_to_urgent: Callable[[], None] = _do_nothing
    """Waits while the event loop serves a client. A batch calls it now and then."""
