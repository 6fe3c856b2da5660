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


def require(holds, code, message, keep=False):
    """Raise `RefusalError` unless the condition holds."""
    if not holds:
        raise RefusalError(code, message, keep)


def check(command, binding, last, now):
    """Return the `seq` of a command that may be obeyed, and the key that signed it. Store both before you obey.

    `last` is `seq` and `id` of the last command of this type; `now` is in milliseconds since 1970, or None.

    Raise `RefusalError` with the first code that applies, in the order of the checks below.
    """
    claims, key = _verified(command["grant_token"], binding)
    said, own, kind = command["binding_generation"], binding["binding_generation"], command["topic_type"]
    exp, seq = claims.get("exp"), claims.get("seq")
    wanted = [("iss", str(claims.get("iss") or "a name")), ("aud", binding["device_id"]), ("jti", command["id"])]
    wanted += [("cmd", command["type"]), ("cmd", kind), ("gen", said), ("par", _digest(command["params"]))]
    wanted += [("exp", exp if _is_near(exp, command["expires_at"]) else "another time")]
    for claim, value in wanted:
        is_same = type(claims.get(claim)) is type(value) and claims.get(claim) == value
        require(is_same, "grant_invalid", f"the grant's {claim} is not that of the command")
    is_seq = type(seq) is int and 0 < seq <= MAX_INTEGER
    require(is_seq, "grant_invalid", "the grant's seq is not a number from 1 to 2^53 - 1")
    code = "stale_generation" if said < own else "generation_mismatch"
    require(said == own, code, f"the command is for generation {said}, this binding is {own}", keep=said < own)
    require(kind in wire.COMMAND_TYPES, "unknown_command", f"this firmware does not know {kind!r}")
    is_next = not last or seq > last["seq"] or (seq, command["id"]) == (last["seq"], last["id"])
    require(is_next, "stale_sequence", f"a later {kind} than number {seq} was taken under this binding")
    require(exp is None or now is not None, "expired", "the clock is not set")
    require(exp is None or now < exp * 1000, "expired", "the command's time is over", keep=True)
    return seq, key


def keys_of(binding):
    """Return the keys that the device obeys, the newest first: two while a new one is not confirmed."""
    new = binding.get("next_grant_key")
    return [binding["grant_key"]] if new is None else [new, binding["grant_key"]]


def is_new_key(params):
    """Return whether the params of a `set_grant_key` are a public Ed25519 key as a JWK (RFC 8037, 2)."""
    try:
        key = wire.pick(params, KEY)
        is_known = (key["kty"], key["crv"], key["alg"]) == ("OKP", "Ed25519", "EdDSA")
        return is_known and 0 < len(key["kid"]) <= MAX_KID_LENGTH and ed25519.is_key(wire.unbase64url(key["x"]))
    except ValueError:
        return False


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


def _digest(params):
    """Return what `par` has to be, or what is equal to nothing in JSON if the params have no canonical form."""
    digest = sha256()
    try:
        for part in parts(params):
            digest.update(part)
    except ValueError:
        return ()
    return wire.base64url(digest.digest())


def _is_near(exp, expires_at):
    """Return whether seconds and a time are less than a second apart, or both absent."""
    if type(exp) is not int or expires_at is None:
        return exp is None and expires_at is None
    return wire.rfc3339(exp * 1000 - 1000) < expires_at < wire.rfc3339(exp * 1000 + 1000)
