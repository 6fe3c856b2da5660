"""Where randomness comes from: the operating system, or a seed in a simulation."""

from __future__ import annotations

import secrets
from collections.abc import Callable

Entropy = Callable[[int], bytes]
"""Given a number of bytes, that many random ones."""

system_entropy: Entropy = secrets.token_bytes
