"""Grants: signed commands, so that a device obeys the gateway and no other client of the broker (contract, section 3).

The Ed25519 keys lie in the registry, so that a backup of the one file can still sign what it has accepted. A command is
signed with the key that its device got when it was bound.
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import lru_cache
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gateway.core import canonical_json
from gateway.core.clock import SECOND_MS
from gateway.core.received_json import parse_json
from gateway.models.bindings import Jwk, LeakedJwk
from gateway.store import Tx, View, device_sql, secret_sql, signing_key_sql
from gateway.store.command_sql import CommandRecord
from gateway.store.records import DeviceKey


def ensure_key(tx: Tx) -> str:
    """Return the id of the signing key in use; make one on the first start."""
    key = signing_key_sql.signing_key(tx)
    if key is not None:
        return key.kid
    private_key = tx.entropy(32)
    public = _public(private_key)
    kid = _thumbprint(public)
    signing_key_sql.insert_signing_key(tx, kid, public, secret_sql.seal(tx, secret_sql.place_of_key(kid), private_key))
    return kid


def rotate(tx: Tx) -> str:
    """Make a new signing key for all new bindings; return its id.

    A device trusts the key that it got when it was bound. So the old keys continue to sign for those devices. That ends
    for each when it is bound again, or takes the new key (:mod:`gateway.domain.grant_keys`).
    """
    signing_key_sql.retire_signing_keys(tx)
    return ensure_key(tx)


def public_key(view: View, kid: str) -> Jwk:
    """Return the public half of a key as a JWK."""
    key = signing_key_sql.signing_key(view, kid)
    if key is None:
        raise LookupError(f"no signing key {kid}")
    return Jwk(x=key.public_key, kid=kid)


def published_keys(view: View) -> list[LeakedJwk | Jwk]:
    """Return the public keys that verify what devices obey and what certificates say, the one in use first."""
    return [_published(view, kid) for kid in signing_key_sql.signing_key_ids(view)]


def _published(view: View, kid: str) -> LeakedJwk | Jwk:
    key = signing_key_sql.signing_key(view, kid)
    leaked_at = None if key is None else device_sql.moment(key.leaked_at)
    public = public_key(view, kid)
    return public if leaked_at is None else LeakedJwk(x=public.x, kid=kid, leaked_at=leaked_at)


def sign(
    tx: Tx,
    *,
    kid: str,
    device: DeviceKey,
    command: dict[str, Any],
    seq: int | None,
    expires_at: int | None,
    issuer: str | None = None,
) -> str:
    """Return the grant of one command: a JWT with device, command, params, binding and expiry.

    ``seq`` rises with each command of a type to a device, so that no earlier command is obeyed after a later one.

    Raises:
        LookupError: there is no such key.
        ValueError: the params have no canonical JSON.
    """
    private = _signing_key(tx, kid)
    claims = {
        "iss": tx.rules.gateway_id if issuer is None else issuer,
        "aud": device.id,
        "jti": command["id"],
        "cmd": str(command["type"]),
        "gen": command["binding_generation"],
        "iat": tx.now // SECOND_MS,
        "par": canonical_json.params_digest(command["params"]),
        "seq": seq,
    }
    if expires_at is not None:
        claims["exp"] = -(-expires_at // SECOND_MS)  # rounded up, so that the grant never ends before the command
    return _signed(claims, kid, private, "JWT")


def sign_document(tx: Tx, claims: dict[str, Any], kind: str) -> tuple[str, str]:
    """Sign claims that are no grant with the key in use; return its id and the compact JWS. ``kind`` is its ``typ``."""
    kid = ensure_key(tx)
    return kid, _signed(claims, kid, _signing_key(tx, kid), kind)


def _signing_key(tx: Tx, kid: str) -> Ed25519PrivateKey:
    """Return the private key with this id. The id is the thumbprint of the public half, so it stays the same key."""
    known = tx.context.signing_keys.get(kid)
    if known is None:
        key = signing_key_sql.signing_key(tx, kid)
        if key is None:
            raise LookupError(f"no signing key {kid}")
        known = _private(tx.context.vault.open(secret_sql.place_of_key(kid), key.private_key))
        tx.context.signing_keys[kid] = known
    return known


def claims_of(jws: str) -> dict[str, Any]:
    """Return the claims of what this registry has signed, without a check of the signature."""
    claims: dict[str, Any] = json.loads(_unbase64url(jws.split(".")[1]))
    return claims


def key_id(grant: str) -> str:
    """Return the id of the key that signed a grant of this registry."""
    return str(json.loads(_unbase64url(grant.partition(".")[0]))["kid"])


def sign_again(
    tx: Tx,
    device: DeviceKey,
    command: CommandRecord,
    *,
    seq: int | None,
    expires_at: int | None,
    kid: str | None = None,
) -> str:
    """Return a new grant of a command whose time, ``seq`` or key has changed. The issuer stays.

    Without a ``kid`` the key that signed it first signs again: its device knows that key.

    Raises:
        ValueError: the params have no canonical JSON.
    """
    claims = claims_of(command.grant_token)
    unsigned = {**command._asdict(), "params": json.loads(command.params)}
    return sign(
        tx,
        kid=kid or key_id(command.grant_token),
        device=device,
        command=unsigned,
        seq=seq,
        expires_at=expires_at,
        issuer=str(claims["iss"]),
    )


def verified(view: View, grant: str) -> dict[str, Any] | None:
    """Return the claims of a grant that one of this registry's keys has signed, or None for any other.

    Raises:
        ValueError: it is no JWT.
    """
    head, body, signature = grant.split(".")
    key = signing_key_sql.signing_key(view, str(parse_json(_unbase64url(head))["kid"]))
    if key is None:
        return None
    try:
        public = Ed25519PublicKey.from_public_bytes(_unbase64url(key.public_key))
        public.verify(_unbase64url(signature), f"{head}.{body}".encode())
    except InvalidSignature:
        return None
    claims: dict[str, Any] = parse_json(_unbase64url(body))
    return claims


def _signed(claims: dict[str, Any], kid: str, key: Ed25519PrivateKey, kind: str) -> str:
    """Return a JWT in its compact form (RFC 7515, 7.1; EdDSA: RFC 8037, 3.1)."""
    parts = [{"alg": "EdDSA", "kid": kid, "typ": kind}, claims]
    text = ".".join(_base64url(json.dumps(part, separators=(",", ":")).encode()) for part in parts)
    return f"{text}.{_base64url(key.sign(text.encode()))}"


@lru_cache(maxsize=8)
def _private(seed: bytes) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(seed)


def _public(seed: bytes) -> str:
    return _base64url(_private(seed).public_key().public_bytes_raw())


def _thumbprint(x: str) -> str:
    """Return the thumbprint of RFC 7638, with the members that RFC 8037 requires."""
    members = json.dumps({"crv": "Ed25519", "kty": "OKP", "x": x}, separators=(",", ":"), sort_keys=True)
    return _base64url(hashlib.sha256(members.encode()).digest())


def _unbase64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
