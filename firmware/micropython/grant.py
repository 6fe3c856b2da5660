"""Check of a command's grant: a JWT with EdDSA, verified with the keys of the binding alone."""

from hashlib import sha256

import ed25519
import wire
from strict_json import MAX_INTEGER, parts, read_json

MAX_KID_LENGTH = 64
KEY = (("kty", str), ("crv", str), ("alg", str), ("kid", str), ("x", str))


class RefusalError(Exception):
    """The device refuses a command; `code`, `message` and `result` go into the acknowledgement.

    `keep` says that the gateway signed the command, so the refusal may be stored under its id. A stale sequence is
    signed too and still not stored: many old commands must not displace the outcomes of commands that were executed.
    """

    def __init__(self, code, message, keep=False, result=None):
        super().__init__(message)
        self.code, self.message, self.keep, self.result = code, message, keep, result


def check(command, topic_type, binding, last, now):
    """Return the `seq` of a command that may be obeyed, and the key that signed it. Store both before you obey.

    `last` is `seq` and `id` of the last command of this type; `now` is in milliseconds since 1970, or None.

    Raise `RefusalError` with the first code that applies, in the order of the checks below.
    """
    claims, key = _verified(command["grant_token"], binding)
    said, own = command["binding_generation"], binding["binding_generation"]
    if type(claims.get("iss")) is not str or not claims["iss"]:
        raise _not_that_of_the_command("iss")
    _agree("aud", claims, binding["device_id"])
    _agree("jti", claims, command["id"])
    _agree("cmd", claims, command["type"])
    _agree("cmd", claims, topic_type)
    _agree("gen", claims, said)
    _agree("par", claims, _digest(command["params"]))
    exp, seq = claims.get("exp"), claims.get("seq")
    _check_expiry_agrees(exp, command["expires_at"])
    if type(seq) is not int or not 0 < seq <= MAX_INTEGER:
        raise RefusalError("grant_invalid", "the grant's seq is not a number from 1 to 2^53 - 1")
    if said != own:
        code = "stale_generation" if said < own else "generation_mismatch"
        raise RefusalError(code, f"the command is for generation {said}, this binding is {own}", keep=said < own)
    if topic_type not in wire.COMMAND_TYPES:
        raise RefusalError("unknown_command", f"this firmware does not know {topic_type!r}")
    if last and (seq < last["seq"] or (seq == last["seq"] and command["id"] != last["id"])):
        raise RefusalError("stale_sequence", f"a later {topic_type} than number {seq} was taken under this binding")
    if exp is not None and now is None:
        raise RefusalError("expired", "the clock is not set")
    if exp is not None and now >= exp * 1000:
        raise RefusalError("expired", "the command's time is over", keep=True)
    return seq, key


def keys_of(binding):
    """Return the keys that the device obeys, the newest first: two while a new one is not confirmed."""
    new = binding.get("next_grant_key")
    return [binding["grant_key"]] if new is None else [new, binding["grant_key"]]


def new_key(params):
    """Return the key in the params of a `set_grant_key`, or raise `RefusalError`."""
    try:
        key = wire.pick(params, KEY)
        known = (key["kty"], key["crv"], key["alg"]) == ("OKP", "Ed25519", "EdDSA")
        good = known and 0 < len(key["kid"]) <= MAX_KID_LENGTH and ed25519.is_key(wire.unbase64url(key["x"]))
    except ValueError:
        good = False
    if not good:
        raise RefusalError("invalid_grant_key", "the params are no public Ed25519 key as a JWK", keep=True)
    return params


def _verified(token, binding):
    """Return the claims, and the key that signed them: exactly three parts, `alg` exactly EdDSA."""
    kid = None
    try:
        head, body, signature = token.split(".")
        header = read_json(wire.unbase64url(head))
        kid = header.get("kid")
        for key in keys_of(binding) if header["alg"] == "EdDSA" else ():
            if ed25519.verify(wire.unbase64url(key["x"]), f"{head}.{body}".encode(), wire.unbase64url(signature)):
                claims = read_json(wire.unbase64url(body))
                if type(claims) is dict:
                    return claims, key
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    # By the two names the gateway recognises a key that this device does not have.
    refused = kid if type(kid) is str and len(kid) <= MAX_KID_LENGTH else None
    named = {"grant_kid": keys_of(binding)[0].get("kid"), "refused_kid": refused}
    raise RefusalError("grant_invalid", "the grant is not signed by the gateway of this binding", result=named)


def _not_that_of_the_command(claim):
    return RefusalError("grant_invalid", f"the grant's {claim} is not that of the command")


def _agree(claim, claims, expected):
    if type(claims.get(claim)) is not type(expected) or claims[claim] != expected:
        raise _not_that_of_the_command(claim)


def _digest(params):
    digest = sha256()
    try:
        for part in parts(params):
            digest.update(part)
    except ValueError:
        raise RefusalError("grant_invalid", "the params have no canonical JSON")
    return wire.base64url(digest.digest())


def _check_expiry_agrees(exp, expires_at):
    """Compare seconds with a time: they may differ by less than a second."""
    if exp is None and expires_at is None:
        return
    if type(exp) is not int or expires_at is None:
        raise _not_that_of_the_command("exp")
    if not wire.rfc3339(exp * 1000 - 1000) < expires_at < wire.rfc3339(exp * 1000 + 1000):
        raise _not_that_of_the_command("exp")
