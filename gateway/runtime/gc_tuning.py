"""How often Python looks for garbage that refers to itself."""

from __future__ import annotations

import gc
from typing import Final

_YOUNG: Final = 200_000
_MIDDLE: Final = 20
_OLD: Final = 100


def tune_gc() -> None:
    """Look less often, and never again at what is there now; call it when everything has started.

    A batch of heartbeats makes thousands of small objects that die with it. By its defaults Python would look through
    them, and now and then through all that there is, many times a second: a sixth of what a heartbeat costs. What is
    there at the start stays: a collection that walks all of it holds every client up.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
