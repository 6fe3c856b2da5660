"""Check of a command's grant: a JWT with EdDSA, verified with the gateway's public key alone."""

import base64
import json
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from device_sim.binding import Binding
from device_sim.canonical import MAX_INTEGER, params_digest
from device_sim.sequences import Sequences
from device_sim.wire import COMMAND_TYPES, Command

GRANT_INVALID = "grant_invalid"
STALE_GENERATION = "stale_generation"
GENERATION_MISMATCH = "generation_mismatch"
EXPIRED = "expired"
UNKNOWN_COMMAND = "unknown_command"
STALE_SEQUENCE = "stale_sequence"
SECOND_MS = 1000


class RefusalError(Exception):
    """The device refuses this command; `code` and `message` go into the acknowledgement."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def is_signed(self) -> bool:
        """Return whether the gateway signed the refused command, so that the refusal may be stored under its id.

        A stale sequence is signed as well and still not stored. Many old commands may arrive again, and they must not
        displace the outcomes of commands that were executed.
        """
        return self.code in {STALE_GENERATION, EXPIRED}


def check(command: Command, topic_type: str, binding: Binding, sequences: Sequences, now: int) -> int:
    """Check a command's grant against the binding and `sequences`, at `now` (ms since the epoch).

    Return its `seq`, which must be stored before the command is executed.

    Raises:
        RefusalError: `grant_invalid`, `stale_generation`, `generation_mismatch`, `unknown_command`, `stale_sequence` or
            `expired`; the first that applies.
    """
    claims = _verify_claims(command.grant_token, binding.grant_key)
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


def _verify_claims(token: str, key: Mapping[str, Any]) -> dict[str, Any]:
    """Return the claims if the key signed them."""
    try:
        head, body, signature = token.split(".")
        header = json.loads(_decode_base64url(head))
        public = Ed25519PublicKey.from_public_bytes(_decode_base64url(key["x"]))
        public.verify(_decode_base64url(signature), f"{head}.{body}".encode())
        claims = json.loads(_decode_base64url(body))
    except (ValueError, KeyError, TypeError, RecursionError, InvalidSignature) as error:
        raise RefusalError(GRANT_INVALID, "the grant is not signed by the gateway of this binding") from error
    if not isinstance(header, dict) or header.get("alg") != "EdDSA" or not isinstance(claims, dict):
        raise RefusalError(GRANT_INVALID, "the grant is not an EdDSA token")
    return claims


def _decode_base64url(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def _require_equal(claim: str, actual: object, expected: object) -> None:
    if actual != expected or isinstance(actual, bool) is not isinstance(expected, bool):
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
    if not isinstance(exp, int | float) or expires_at is None or not abs(exp * SECOND_MS - expires_at) < SECOND_MS:
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
