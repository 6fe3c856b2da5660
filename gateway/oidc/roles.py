"""Roles by claims: which role the provider's claims give a person, and the name to show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from gateway.core.visible_text import is_visible
from gateway.settings.role_rules import RoleRule

_EMAIL: Final = "email"
_NAMES: Final = ("name", "preferred_username", "email")
LONGEST_NAME: Final = 128


def has_claim(claims: Mapping[str, Any], claim: str) -> bool:
    """Return whether this claim is among the claims."""
    return _found(claims, claim) is not None


def values_of(claims: Mapping[str, Any], claim: str) -> frozenset[str]:
    """Return the values of a claim: of a text that one, of a list each text in it.

    An e-mail address counts only when the provider has verified it: else people could choose the role themselves.
    """
    if claim == _EMAIL and claims.get("email_verified") is not True:
        return frozenset()
    found = _found(claims, claim)
    values = found if isinstance(found, list) else [found]
    return frozenset(value for value in values if isinstance(value, str))


def matching(rules: Iterable[RoleRule], claims: Mapping[str, Any], claim: str) -> list[RoleRule]:
    """Return the rules that fit these claims, in their order."""
    values = values_of(claims, claim)
    return [rule for rule in rules if rule.value in values]


def display_name(claims: Mapping[str, Any], sub: str) -> str:
    """Return the name to show: the first that people can read of name, user name and address, else the ``sub``."""
    for each in (claims.get(name) for name in _NAMES):
        if isinstance(each, str) and each.strip() and is_visible(each):
            return each.strip()[:LONGEST_NAME]
    return sub[:LONGEST_NAME]


def _found(claims: Mapping[str, Any], claim: str) -> Any:
    """Return the claim with this very name, or else the one at the end of its dotted path."""
    if claim in claims:
        return claims[claim]
    found: Any = claims
    for name in claim.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found
