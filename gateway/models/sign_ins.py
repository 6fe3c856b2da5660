"""Where a sign-in can be refused, and why."""

from __future__ import annotations

from typing import Final, Literal, get_args

Channel = Literal["http", "mqtt", "broker_auth"]
Reason = Literal[
    "missing", "malformed", "unknown", "expired", "revoked", "rotated", "certificate", "csrf", "provider", "role"
]
"""``csrf``: a change with the cookie of a session, from another page. ``provider``: a sign-in that the provider's
answer does not bear out. ``role``: a person without a role."""
SIGN_INS: Final[tuple[tuple[Channel, Reason], ...]] = (
    *(("http", reason) for reason in get_args(Reason)),
    ("mqtt", "unknown"),
    ("broker_auth", "unknown"),
)
"""Every pair that can be: the brokers are told no reason, so neither is the gateway."""
