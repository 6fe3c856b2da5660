"""Source of randomness: the operating system, or a seed in a simulation."""

from __future__ import annotations

import secrets
from collections.abc import Callable

Entropy = Callable[[int], bytes]
"""A function that returns so many random bytes."""

system_entropy: Entropy = secrets.token_bytes
