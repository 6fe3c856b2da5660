"""Size of a fleet up to which a password file is good for it (docs/scaling.md)."""

from __future__ import annotations

from typing import Final

MOST_BOUND: Final = 100_000
"""At each change Mosquitto reads all of the file, and serves no client meanwhile. With 100,000 users a revoked session
ended after 0.3 s, with a million after 9 s. It must end within a second (contract, section 1)."""
REMEDY: Final = (
    "Use a broker that asks the gateway instead of a password file ('gateway docs other-brokers'), or several "
    "brokers with cells = home ('gateway docs scaling')."
)


def outgrown(bound: int, most: int = MOST_BOUND) -> str | None:
    """Return the warning for a fleet with so many bound devices, or None."""
    if bound <= most:
        return None
    return (
        f"{bound} devices are bound, and Mosquitto's password file is good for {most}: Mosquitto reads all of it at "
        "each change of a token, so a revoked session may live for longer than a second."
    )
