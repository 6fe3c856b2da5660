"""Checks of what the provider signs: ID tokens (OpenID Connect Core, 3.1.3.7) and logout tokens (Back-Channel, 2.6).

joserfc verifies signatures. It is an optional dependency, so it is imported where it is used.
"""

from __future__ import annotations

import hmac
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gateway.core.received_json import parse_json
from gateway.oidc.options import TokenError

if TYPE_CHECKING:
    from collections.abc import Mapping

ALGORITHMS: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA", "Ed25519"),
)
"""Signatures by a key pair alone. ``none`` and HMAC are refused: a public key must never serve as a shared secret."""
LEEWAY_SECONDS: Final = 60
"""Allowed difference between the clocks of provider and gateway."""
_FRESH_SECONDS: Final = 600
_LOGOUT_SECONDS: Final = 300
LOGOUT_EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"
_LOGOUT_TYPES: Final = (None, "logout+jwt", "jwt")
_SUB: Final = re.compile(r"[\x21-\x7e]{1,255}")
_LONGEST: Final = 100_000
_LONGEST_HEAD: Final = 8_192


class Expected(NamedTuple):
    """From whom a token must be, for whom, and when it is checked (Unix seconds)."""

    issuer: str
    client_id: str
    now: int


class LogoutToken(NamedTuple):
    """Whom the provider signs out: a session of it, or every session of a person. ``until`` is in Unix seconds."""

    token_id: str
    sub: str | None
    sid: str | None
    until: int


def head_of(token: str) -> dict[str, Any]:
    """Return the header of a token whose signature was not verified.

    Raises:
        TokenError: it is no signed token, or its algorithm is not allowed.
    """
    from joserfc import errors, jws  # noqa: PLC0415 - an optional dependency

    if len(token) > _LONGEST or not token.isascii():
        raise TokenError("The token is not a compact JWS.")
    try:
        head = dict(jws.extract_compact(token.encode()).headers())
    except (errors.JoseError, ValueError, TypeError) as error:
        raise TokenError(f"The token is not a compact JWS ({type(error).__name__}).") from error
    if head.get("alg") not in ALGORITHMS:
        raise TokenError(f"The token has the algorithm {str(head.get('alg'))[:40]!r}, which is not allowed.")
    return head


def verified(token: str, key: Mapping[str, Any]) -> dict[str, Any]:
    """Return the claims of a token that this public key (a JWK) signed.

    Raises:
        TokenError: the key did not sign it, or does not fit its algorithm.
    """
    from joserfc import errors, jwk, jws  # noqa: PLC0415 - an optional dependency

    registry = jws.JWSRegistry(algorithms=list(ALGORITHMS), strict_check_header=False)
    registry.max_header_length = _LONGEST_HEAD
    try:
        content = jws.deserialize_compact(token, jwk.import_key(dict(key)), list(ALGORITHMS), registry).payload
        claims = parse_json(content)
    except (errors.JoseError, ValueError, TypeError, KeyError) as error:
        raise TokenError(f"The token's signature is not good ({type(error).__name__}).") from error
    if not isinstance(claims, dict):
        raise TokenError("The token has no claims.")
    return claims


def check_id_token(claims: dict[str, Any], expected: Expected, *, nonce: str | None) -> None:
    """Check the claims of an ID token. ``nonce`` is None for a token that came with a refresh.

    Raises:
        TokenError: one is missing or wrong.
    """
    _check_addressee(claims, expected)
    issued, expires = _time(claims, "iat"), _time(claims, "exp")
    if expires <= expected.now - LEEWAY_SECONDS:
        raise TokenError("The ID token has expired.")
    if not expected.now - _FRESH_SECONDS - LEEWAY_SECONDS <= issued <= expected.now + LEEWAY_SECONDS:
        raise TokenError("The ID token was not issued now. Check the clocks of provider and gateway.")
    if "nbf" in claims and _time(claims, "nbf") > expected.now + LEEWAY_SECONDS:
        raise TokenError("The ID token is not valid yet.")
    if nonce is not None and not _same(claims.get("nonce"), nonce):
        raise TokenError("The ID token has another nonce than the sign-in.")
    sub_of(claims)


def check_logout_token(head: dict[str, Any], claims: dict[str, Any], expected: Expected) -> LogoutToken:
    """Check a logout token, and return whom it signs out.

    Raises:
        TokenError: it is another kind of token, or one of its claims is missing or wrong.
    """
    kind = head.get("typ")
    if (kind.lower() if isinstance(kind, str) else kind) not in _LOGOUT_TYPES:
        raise TokenError("The token's type is not logout+jwt.")
    _check_addressee(claims, expected)
    issued = _time(claims, "iat")
    if not expected.now - _LOGOUT_SECONDS - LEEWAY_SECONDS <= issued <= expected.now + LEEWAY_SECONDS:
        raise TokenError("The logout token was not issued now.")
    if "exp" in claims and _time(claims, "exp") <= expected.now - LEEWAY_SECONDS:
        raise TokenError("The logout token has expired.")
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(LOGOUT_EVENT), dict):
        raise TokenError("The token does not say that it is for a logout.")
    if "nonce" in claims:
        raise TokenError("A logout token has no nonce.")
    sid, token_id = claims.get("sid"), claims.get("jti")
    if not isinstance(token_id, str) or not token_id:
        raise TokenError("The logout token has no id (jti).")
    if not (sid is None or (isinstance(sid, str) and sid)) or (sid is None and "sub" not in claims):
        raise TokenError("The logout token names neither a session (sid) nor a person (sub).")
    until = expected.now + 2 * (_LOGOUT_SECONDS + 2 * LEEWAY_SECONDS)
    return LogoutToken(token_id, sub_of(claims) if "sub" in claims else None, sid, until)


def sub_of(claims: Mapping[str, Any]) -> str:
    """Return whom claims are about.

    Raises:
        TokenError: the ``sub`` is missing, or has a space or other characters than ASCII.
    """
    sub = claims.get("sub")
    if not isinstance(sub, str) or not _SUB.fullmatch(sub):
        raise TokenError("The claim sub should be 1 to 255 visible ASCII characters.")
    return sub


def _check_addressee(claims: dict[str, Any], expected: Expected) -> None:
    if claims.get("iss") != expected.issuer:
        raise TokenError("The token is from another issuer.")
    audience = claims.get("aud")
    named = [audience] if isinstance(audience, str) else audience
    if not isinstance(named, list) or expected.client_id not in named:
        raise TokenError("The token is for another client (aud).")
    if (len(named) > 1 or "azp" in claims) and claims.get("azp") != expected.client_id:
        raise TokenError("The token was issued to another client (azp).")


def _time(claims: dict[str, Any], name: str) -> float:
    value = claims.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TokenError(f"The token has no time {name}.")
    return value


def _same(given: object, expected: str) -> bool:
    return isinstance(given, str) and hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())
