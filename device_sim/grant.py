"""Check of a command's grant: a JWT with EdDSA, verified with the gateway's public key alone."""

import base64
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from device_sim.binding import Binding
from device_sim.canonical import MAX_INTEGER, params_digest
from device_sim.sequences import Sequences
from device_sim.strict_json import read_json
from device_sim.wire import COMMAND_TYPES, SECOND_MS, Command

GRANT_INVALID = "grant_invalid"
STALE_GENERATION = "stale_generation"
GENERATION_MISMATCH = "generation_mismatch"
EXPIRED = "expired"
UNKNOWN_COMMAND = "unknown_command"
STALE_SEQUENCE = "stale_sequence"
INVALID_GRANT_KEY = "invalid_grant_key"
INVALID_PARAMS = "invalid_params"
MAX_KID_LENGTH = 64
_FIELD = 2**255 - 19
_Y_BITS = 2**255 - 1
# The y of the eight points whose order divides eight. Such a key would verify signatures that anyone can make.
_SMALL_ORDER = {
    0,
    1,
    _FIELD - 1,
    0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
    0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
}


class RefusalError(Exception):
    """The device refuses this command; `code` and `message` go into the acknowledgement."""

    def __init__(self, code: str, message: str, result: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.result = result

    @property
    def is_signed(self) -> bool:
        """Return whether the gateway signed the refused command, so that the refusal may be stored under its id.

        A stale sequence is signed as well and still not stored. Many old commands may arrive again, and they must not
        displace the outcomes of commands that were executed.
        """
        return self.code in {STALE_GENERATION, EXPIRED, INVALID_GRANT_KEY, INVALID_PARAMS}


def check(command: Command, topic_type: str, binding: Binding, sequences: Sequences, now: int) -> int:
    """Check a command's grant against the binding and `sequences`, at `now` (ms since the epoch).

    Return its `seq`, which must be stored before the command is executed.

    Raises:
        RefusalError: `grant_invalid`, `stale_generation`, `generation_mismatch`, `unknown_command`, `stale_sequence` or
            `expired`; the first that applies.
    """
    claims = _verify_claims(command.grant_token, binding)
    _require_equal("iss", bool(claims.get("iss")) and isinstance(claims.get("iss"), str), expected=True)
    _require_equal("aud", claims.get("aud"), binding.device_id)
    _require_equal("jti", claims.get("jti"), command.id)
    _require_equal("cmd", claims.get("cmd"), command.type)
    _require_equal("cmd", claims.get("cmd"), topic_type)
    _require_equal("gen", claims.get("gen"), command.binding_generation)
    _check_params(claims.get("par"), command.params)
    _check_expiry(claims.get("exp"), command.expires_at)
    seq = _check_sequence(claims.get("seq"))
    _check_generation(command.binding_generation, binding.generation)
    if topic_type not in COMMAND_TYPES:
        raise RefusalError(UNKNOWN_COMMAND, f"this firmware does not know {topic_type!r}")
    if not sequences.is_allowed(topic_type, seq, command.id):
        raise RefusalError(STALE_SEQUENCE, f"a later {topic_type} than number {seq} was taken under this binding")
    if claims.get("exp") is not None and now >= claims["exp"] * SECOND_MS:
        raise RefusalError(EXPIRED, "the command's time is over")
    return seq


def _verify_claims(token: str, binding: Binding) -> dict[str, Any]:
    """Return the claims if a key of the binding signed them."""
    for key in binding.grant_keys:
        with suppress(ValueError, LookupError, TypeError, RecursionError, InvalidSignature):
            return _read_token(token, key)
    raise RefusalError(
        GRANT_INVALID, "the grant is not signed by the gateway of this binding", _name_keys(token, binding)
    )


def is_signed_by(token: str, key: Mapping[str, Any]) -> bool:
    """Return whether this key signed the grant."""
    with suppress(ValueError, LookupError, TypeError, RecursionError, InvalidSignature):
        _read_token(token, key)
        return True
    return False


def _name_keys(token: str, binding: Binding) -> dict[str, Any]:
    """Return the ids of the key that this device obeys and of the key that the refused grant names.

    By these the gateway recognises that it used a key that the device no longer has.
    """
    named = None
    with suppress(ValueError, LookupError, TypeError, RecursionError):
        named = read_json(_decode_base64url(token.split(".", 1)[0]))["kid"]
    refused = named if isinstance(named, str) and len(named) <= MAX_KID_LENGTH else None
    return {"grant_kid": binding.grant_keys[0].get("kid"), "refused_kid": refused}


def _read_token(token: str, key: Mapping[str, Any]) -> dict[str, Any]:
    """Read a token of exactly three parts, whose `alg` is exactly EdDSA and whose claims are an object."""
    head, body, signature = token.split(".")
    if read_json(_decode_base64url(head))["alg"] != "EdDSA":
        raise ValueError("another algorithm")
    public_key(key).verify(_decode_base64url(signature), f"{head}.{body}".encode())
    claims = read_json(_decode_base64url(body))
    if not isinstance(claims, dict):
        raise TypeError("claims that are no object")
    return claims


def public_key(key: Mapping[str, Any]) -> Ed25519PublicKey:
    """Read a public key. Refuse a second encoding and a small order, which some libraries accept.

    Raises:
        ValueError, LookupError, TypeError: its `x` is no such key.
    """
    raw = _decode_base64url(key["x"])
    y = int.from_bytes(raw, "little") & _Y_BITS
    if y >= _FIELD or y in _SMALL_ORDER:
        raise ValueError("a key that no gateway makes")
    return Ed25519PublicKey.from_public_bytes(raw)


def _decode_base64url(text: str) -> bytes:
    """Decode base64url without padding. Of several texts for the same bytes only one is accepted."""
    raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if base64.urlsafe_b64encode(raw).rstrip(b"=") != text.encode():
        raise ValueError("a second base64url of the same bytes")
    return raw


def _require_equal(claim: str, actual: object, expected: object) -> None:
    """Compare a claim by value and type, since Python holds 1, 1.0 and True to be equal."""
    if actual != expected or type(actual) is not type(expected):
        raise RefusalError(GRANT_INVALID, f"the grant's {claim} is not that of the command")


def _check_params(par: object, params: Mapping[str, Any]) -> None:
    try:
        actual = params_digest(params)
    except (ValueError, RecursionError) as error:
        raise RefusalError(GRANT_INVALID, "the params have no canonical JSON") from error
    _require_equal("par", par, actual)


def _check_sequence(seq: object) -> int:
    if not isinstance(seq, int) or isinstance(seq, bool) or not 0 < seq <= MAX_INTEGER:
        raise RefusalError(GRANT_INVALID, "the grant's seq is not a number from 1 to 2^53 - 1")
    return seq


def _check_expiry(exp: object, expires_at: int | None) -> None:
    """Check `exp` (seconds) against `expires_at` (milliseconds); they may differ by less than a second."""
    if exp is None and expires_at is None:
        return
    if (
        not isinstance(exp, int)
        or isinstance(exp, bool)
        or expires_at is None
        or not abs(exp * SECOND_MS - expires_at) < SECOND_MS
    ):
        raise RefusalError(GRANT_INVALID, "the grant's exp is not that of the command")


def _check_generation(command_generation: int, own_generation: int) -> None:
    if command_generation < own_generation:
        raise RefusalError(
            STALE_GENERATION, f"the command is for generation {command_generation}, this binding is {own_generation}"
        )
    if command_generation > own_generation:
        raise RefusalError(
            GENERATION_MISMATCH, f"the command is for generation {command_generation}, this binding is {own_generation}"
        )
