"""Roles of people who sign in, and the scopes of each (contract, section 9)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal, get_args

from gateway.core.credentials import SCOPES

Role = Literal["viewer", "operator", "admin"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)
"""The least first."""
SCOPES_OF: Final[Mapping[Role, tuple[str, ...]]] = {
    "viewer": ("devices:read",),
    "operator": ("devices:read", "devices:write"),
    "admin": SCOPES,
}


def highest(roles: Iterable[Role]) -> Role:
    """Return the role that may do most. There must be one."""
    return max(roles, key=ROLES.index)
