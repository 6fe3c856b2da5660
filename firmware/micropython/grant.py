"""Check of a command's grant: a JWT with EdDSA, verified with the keys of the binding alone."""

from hashlib import sha256

import ed25519
import wire

PROVEN = ("stale_generation", "expired", "invalid_grant_key")
MAX_KID_LENGTH = 64


class RefusalError(Exception):
    """The device refuses a command; `code` and `message` go into the acknowledgement.

    `proven` says that the gateway signed the command, so the refusal may be stored under its id. A stale sequence is
    signed too and still not stored: many old commands must not displace the outcomes of commands that were executed.
    """

    def __init__(self, code, message, proven=True, result=None):
        super().__init__(message)
        self.code = code
        self.message = message
        self.result = result
        self.proven = proven and code in PROVEN


def check(command, topic_type, binding, sequences, now):
    """Return the `seq` of a command that may be obeyed, and the key that signed it. Store both before you obey.

    `now` is in milliseconds since 1970, or None.

    Raise `RefusalError` with the first code that applies, in the order of the checks below.
    """
    claims, key = _verified(command["grant_token"], binding)
    if not claims.get("iss") or type(claims["iss"]) is not str:
        raise _invalid("the grant's iss is not that of the command")
    _agree("aud", claims, binding["device_id"])
    _agree("jti", claims, command["id"])
    _agree("cmd", claims, command["type"])
    _agree("cmd", claims, topic_type)
    _agree("gen", claims, command["binding_generation"])
    _check_params(claims, command["params"])
    exp = claims.get("exp")
    _check_expiry_agrees(exp, command["expires_at"])
    seq = claims.get("seq")
    if type(seq) is not int or not 0 < seq <= wire.MAX_INTEGER:
        raise _invalid("the grant's seq is not a number from 1 to 2^53 - 1")
    _check_generation(command["binding_generation"], binding["binding_generation"])
    if topic_type not in wire.COMMAND_TYPES:
        raise RefusalError("unknown_command", f"this firmware does not know {topic_type!r}")
    if not sequences.allow(topic_type, seq, command["id"]):
        raise RefusalError("stale_sequence", f"a later {topic_type} than number {seq} was taken under this binding")
    if exp is not None and now is None:
        raise RefusalError("expired", "the clock is not set", proven=False)
    if exp is not None and now >= exp * 1000:
        raise RefusalError("expired", "the command's time is over")
    return seq, key


def keys_of(binding):
    """Return the keys that the device obeys, the newest first: two while a new one is not confirmed."""
    new = binding.get("next_grant_key")
    return [binding["grant_key"]] if new is None else [new, binding["grant_key"]]


def new_key(params):
    """Return the key in the params of a `set_grant_key`, or raise `RefusalError`."""
    kid = params.get("kid")
    try:
        good = ed25519.is_key(wire.unbase64url(params["x"])) and 0 < len(kid) <= MAX_KID_LENGTH
    except (ValueError, KeyError, TypeError, AttributeError):
        good = False
    kind = (params.get("kty"), params.get("crv"), params.get("alg"), type(kid))
    if not good or kind != ("OKP", "Ed25519", "EdDSA", str):
        raise RefusalError("invalid_grant_key", "the params are no public Ed25519 key as a JWK")
    return {name: value for name, value in params.items() if type(value) is str}


def _invalid(message):
    return RefusalError("grant_invalid", message)


def _verified(token, binding):
    """Return the claims, and the key that signed them: exactly three parts, `alg` exactly EdDSA."""
    parts = token.split(".")
    try:
        head, body, signature = [wire.unbase64url(part) for part in parts]
        keys = keys_of(binding) if wire.read_json(head)["alg"] == "EdDSA" else []
        for key in keys:
            if ed25519.verify(wire.unbase64url(key["x"]), f"{parts[0]}.{parts[1]}".encode(), signature):
                claims = wire.read_json(body)
                if type(claims) is dict:
                    return claims, key
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    named = {"grant_kid": keys_of(binding)[0].get("kid"), "refused_kid": _kid(parts[0])}
    raise RefusalError("grant_invalid", "the grant is not signed by the gateway of this binding", result=named)


def _kid(head):
    """Return the `kid` of a header, by which the gateway recognises a key that this device does not have."""
    try:
        kid = wire.read_json(wire.unbase64url(head))["kid"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return kid if type(kid) is str and len(kid) <= MAX_KID_LENGTH else None


def _agree(claim, claims, expected):
    actual = claims.get(claim)
    if type(actual) is not type(expected) or actual != expected:
        raise _invalid(f"the grant's {claim} is not that of the command")


def _check_params(claims, params):
    digest = sha256()
    try:
        wire.write(params, digest.update)  # part by part: a small heap has no room for a copy
    except ValueError:
        digest = None
    if digest is None:
        raise _invalid("the params have no canonical JSON")
    _agree("par", claims, wire.base64url(digest.digest()))


def _check_expiry_agrees(exp, expires_at):
    """Compare seconds with milliseconds: they may differ by less than a second."""
    if exp is None and expires_at is None:
        return
    if type(exp) is not int or expires_at is None or not -1000 < exp * 1000 - expires_at < 1000:
        raise _invalid("the grant's exp is not that of the command")


def _check_generation(said, own):
    message = f"the command is for generation {said}, this binding is {own}"
    if said < own:
        raise RefusalError("stale_generation", message)
    if said > own:
        raise RefusalError("generation_mismatch", message)
