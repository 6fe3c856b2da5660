"""Words that fit their numbers, for people."""

from __future__ import annotations


def count(number: int, thing: str) -> str:
    """So many of a thing: ``1 device``, ``2 devices``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
