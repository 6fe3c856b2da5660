"""A new grant key without a new bind: `set_grant_key`, announced by the key that the device obeys.

The device writes the new key beside the old one and accepts grants of both. The first command under the new key proves
that the gateway has its private half, and drops the old one. So the device always obeys a key that its gateway has.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from device_sim import grant, wire
from device_sim.actions import Action, Area, RecordFact, WriteFlash
from device_sim.binding import PAIRING, Binding

SET_GRANT_KEY = "set_grant_key"


def settled(binding: Binding, command: wire.Command) -> tuple[Binding, list[Action]]:
    """Drop the old key if the new one signed this command, whose grant was checked. Return binding and actions."""
    new = binding.next_grant_key
    if new is None or not grant.is_signed_by(command.grant_token, new):
        return binding, []
    alone = replace(binding, grant_key=new, next_grant_key=None)
    return alone, [
        WriteFlash(Area.WIPED, PAIRING, alone.pairing()),
        RecordFact("grant_key_dropped", {"kid": binding.grant_key.get("kid")}),
    ]


def announced(binding: Binding, params: Mapping[str, Any]) -> tuple[Binding, list[Action]]:
    """Add the key in `params`, which the device's own key has signed. A key that it has already changes nothing.

    Raises:
        RefusalError: `invalid_grant_key`: this is no public Ed25519 key as a JWK (RFC 8037, 2).
    """
    key = _checked(params)
    if any(key["x"] == known["x"] for known in binding.grant_keys):
        return binding, []
    both = replace(binding, next_grant_key=key)
    return both, [WriteFlash(Area.WIPED, PAIRING, both.pairing()), RecordFact("grant_key_added", {"kid": key["kid"]})]


def _checked(params: Mapping[str, Any]) -> dict[str, Any]:
    key = dict(params)
    kid = key.get("kid")
    named = isinstance(kid, str) and 0 < len(kid) <= grant.MAX_KID_LENGTH
    of_kind = (key.get("kty"), key.get("crv"), key.get("alg")) == ("OKP", "Ed25519", "EdDSA")
    if not (named and of_kind and _is_public_key(key)):
        raise grant.RefusalError(grant.INVALID_GRANT_KEY, "the params are no public Ed25519 key as a JWK")
    return key


def _is_public_key(key: Mapping[str, Any]) -> bool:
    with suppress(ValueError, LookupError, TypeError, AttributeError):
        grant.public_key(key)
        return True
    return False
