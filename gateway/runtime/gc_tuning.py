"""Thresholds of Python's cyclic garbage collector."""

from __future__ import annotations

import gc
from typing import Final

_YOUNG: Final = 200_000
_MIDDLE: Final = 20
_OLD: Final = 100


def collect_rarely() -> None:
    """Raise the thresholds. Call this before the modules of a program are imported.

    Imports make 80,000 objects, and next to no garbage: at the default thresholds a tenth of their CPU time is spent in
    looking for it.
    """
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)


def keep_imported() -> None:
    """Never look again at what exists now. Call this when all modules of a long-running program are imported."""
    gc.freeze()


def tune_gc() -> None:
    """Collect less often, and never again what exists now. Call this after the start.

    A batch of heartbeats makes thousands of small objects that die with it. At the default thresholds the collector
    would scan them many times a second, and now and then everything else: a sixth of the cost of a heartbeat. What
    exists after the start stays, and a collection that walks all of it delays every client.
    """
    gc.collect()
    gc.freeze()
    collect_rarely()
