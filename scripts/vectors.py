"""Writes docs/vectors.json: what a device computes, and commands with the answer that it gives to each.

``scripts/vectors.py > docs/vectors.json``. The private key is the bytes 00 … 1f, so the output is the same each time.
"""

import base64
import hashlib
import hmac
import json
import sys
from collections.abc import Iterator
from typing import Any

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from vector_grants import (
    COMMAND,
    DEVICE,
    EARLIER,
    GENERATION,
    HEADER,
    INVALID,
    INVALID_KEY,
    KEY,
    LATER,
    NEW_KEY,
    ORDER,
    PARAMS,
    PUBLIC,
    SECOND,
    SEQ,
    STRANGER,
    TOKEN,
    case,
    claims,
    compact,
    par,
    payload,
    public,
    receipt,
    text,
    timed,
    token,
)
from vector_recordings import recordings


def good() -> Iterator[dict[str, Any]]:
    """Yield what a device obeys."""
    yield case("good", "the command of the page", "delivered", payload())
    params = {"recordings": "keep", "n": 1}
    said = payload(token(claims(par=par(params))), params=params)
    yield case("good_params", "params that the gateway signed", "delivered", said)
    form = said.replace('{"recordings":"keep","n":1}', '{ "n" : 1.0 ,\n "recordings" : "\\u006beep" }')
    yield case("good_other_form", "the same params in another form", "delivered", form)
    yield case("good_until_exp", "a minute before its exp", "delivered", timed(SECOND + 60, LATER), topic="reboot")
    ahead = payload(token(claims(iat=SECOND + 86_400)))
    yield case("good_iat_ahead", "the clock of the device is behind; iat is not checked", "delivered", ahead)
    again = {"last_sequences": {"factory_reset": {"seq": SEQ, "id": COMMAND}}}
    yield case("good_again", "power failed after seq was written: the same command", "delivered", payload(), **again)
    before = {"last_sequences": {"factory_reset": {"seq": SEQ - 1, "id": "cmd_EARLIER"}}}
    yield case("good_next", "an earlier command of this type was accepted", "delivered", payload(), **before)


def algorithms() -> Iterator[dict[str, Any]]:
    """Yield tokens that ask the device for another algorithm."""
    head, body, signature = token().split(".")
    for name, alg in (("none", "none"), ("None", "None"), ("lower_case", "eddsa"), ("es256", "ES256")):
        said = payload(token(header={**HEADER, "alg": alg}))
        yield case(f"alg_{name}", f"alg {alg}, signed all the same", INVALID, said)
    unsigned = text(compact({"alg": "none"}))
    yield case("alg_none_unsigned", "alg none and no signature", INVALID, payload(f"{unsigned}.{body}."))
    yield case("alg_missing", "a header without alg", INVALID, payload(token(header={"typ": "JWT"})))
    yield case("no_signature", "the signature removed", INVALID, payload(f"{head}.{body}."))
    hs256 = text(compact({"alg": "HS256", "typ": "JWT"}))
    for name, key in (("bytes", PUBLIC), ("text", text(PUBLIC).encode())):
        mac = hmac.new(key, f"{hs256}.{body}".encode(), hashlib.sha256).digest()
        said = payload(f"{hs256}.{body}.{text(mac)}")
        yield case(f"hs256_public_key_{name}", f"HS256 with the {name} of the public key as its secret", INVALID, said)
    swapped = f"{text(compact({**HEADER, 'kid': 'other'}))}.{body}.{signature}"
    yield case("header_changed", "another kid in the header, the signature of before", INVALID, payload(swapped))
    yield case("other_key", "signed with another key", INVALID, payload(token(key=STRANGER)))
    other = payload(token(header={**HEADER, "kid": "other"}, key=STRANGER))
    yield case("other_key_and_kid", "an unknown kid: no key is fetched for it", INVALID, other)


def differing_claims() -> Iterator[dict[str, Any]]:
    """Yield grants that were signed, for something else than the command beside them."""
    changes: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("iss_missing", "no iss", {"iss": None}),
        ("aud_other", "a grant for another device", {"aud": "dev_01KAG0000000000000000OTHER"}),
        ("aud_list", "aud as a list with the device in it", {"aud": [DEVICE]}),
        ("aud_missing", "no aud", {"aud": None}),
        ("jti_other", "a grant for another command", {"jti": "cmd_01KAG0000000000000000OTHER"}),
        ("cmd_other", "a grant for another type", {"cmd": "reboot"}),
        ("gen_other", "gen differs from the binding_generation of the command", {"gen": GENERATION - 1}),
        ("gen_text", "gen as a string", {"gen": "3"}),
        ("gen_fraction", "gen as 3.0", {"gen": 3.0}),
        ("par_missing", "no par", {"par": None}),
        ("par_padded", "par with padding", {"par": par({}) + "="}),
        ("seq_missing", "no seq", {"seq": None}),
        ("seq_zero", "seq 0", {"seq": 0}),
        ("seq_fraction", "seq 7.0", {"seq": 7.0}),
        ("seq_text", "seq as a string", {"seq": "7"}),
        ("seq_true", "seq true", {"seq": True}),
        ("seq_too_high", "seq 2^53", {"seq": 2**53}),
        ("exp_without_expires_at", "exp, but expires_at is null", {"exp": SECOND + 60}),
    )
    for name, about, changed in changes:
        yield case(name, about, INVALID, payload(token(claims(**changed))))
    yield case("id_changed", "the id changed around a good grant", INVALID, payload(id="cmd_OTHER"))
    yield case("type_changed", "the type changed around a good grant", INVALID, payload(type="reboot"))
    yield case("topic_changed", "a good command on another topic", INVALID, payload(), topic="reboot")
    yield case("generation_changed", "the generation changed", INVALID, payload(binding_generation=GENERATION + 1))
    yield case("params_changed", "params {}, changed on the way", INVALID, payload(params={"recordings": "wipe"}))
    signed = token(claims(par=par({"recordings": "keep"})))
    yield case("params_value_changed", "another value", INVALID, payload(signed, params={"recordings": "wipe"}))
    yield case("params_removed", "the params removed", INVALID, payload(signed))
    number = token(claims(par=par({"n": 1})))
    yield case("params_type_changed", "1 as true", INVALID, payload(number, params={"n": True}))
    yield case("params_too_large_number", "an integer of 2^53", INVALID, payload(number, params={"n": 2**53}))
    later = timed(SECOND + 60, "2025-11-20T09:00:00.000Z")
    yield case("expires_at_changed", "expires_at later than exp", INVALID, later, topic="reboot")
    removed = timed(SECOND + 60, None)
    yield case("expires_at_removed", "exp, but expires_at was removed", INVALID, removed, topic="reboot")
    text_exp = payload(token(claims(cmd="reboot", exp="soon")), type="reboot", expires_at=LATER)
    yield case("exp_text", "exp as a string", INVALID, text_exp, topic="reboot")


def damaged_tokens() -> Iterator[dict[str, Any]]:
    """Yield tokens whose form or signature a lax reader accepts."""
    head, body, signature = token().split(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    cut = (
        ("truncated", "the last character cut off", token()[:-1]),
        ("truncated_signature", "a signature of 63 bytes", f"{head}.{body}.{text(raw[:-1])}"),
        ("truncated_claims", "claims cut off in the middle", f"{head}.{body[:40]}.{signature}"),
        ("two_parts", "no third part", f"{head}.{body}"),
        ("two_signatures", "a second signature as a fourth part", f"{token()}.{signature}"),
        ("empty", "an empty token", ""),
        ("padded", "base64url with padding", f"{token()}=="),
        ("second_base64url", "unused bits of the last character set", token()[:-1] + chr(ord(token()[-1]) + 1)),
        ("blank", "a blank before the token", f" {token()}"),
        ("line_end", "a line end after the token", f"{token()}\n"),
        ("claims_list", "signed claims that are a list", token(b"[]")),
        ("claims_not_json", "signed claims that are not JSON", token(b"{")),
        ("claims_nan", "a signed NaN in the claims", token(compact(claims(nonce=0)).replace(b":0}", b":NaN}"))),
    )
    for name, about, said in cut:
        yield case(f"token_{name}", about, INVALID, payload(said))
    double = {"payload": body, "signatures": [{"protected": head, "signature": signature}] * 2}
    yield case("token_json_form", "two signatures in the JSON form of JWS", INVALID, payload(compact(double).decode()))
    s = int.from_bytes(raw[32:], "little")
    higher = raw[:32] + (s + ORDER).to_bytes(32, "little")
    yield case("s_plus_order", "S + L in the place of S", INVALID, payload(f"{head}.{body}.{text(higher)}"))
    off_curve = (2).to_bytes(32, "little") + raw[32:]
    yield case("r_not_on_curve", "an R that is no point", INVALID, payload(f"{head}.{body}.{text(off_curve)}"))
    negated = bytes([*raw[:31], raw[31] ^ 0x80]) + raw[32:]
    yield case("r_negated", "the sign of R changed", INVALID, payload(f"{head}.{body}.{text(negated)}"))
    zero = text(bytes(64))
    yield case("signature_zero", "64 zero bytes", INVALID, payload(f"{head}.{body}.{zero}"))


def bad_keys() -> Iterator[dict[str, Any]]:
    """Yield keys that a gateway never makes; signature and key fit together for a lax verification."""
    head, body, _ = token().split(".")
    neutral = (1).to_bytes(32, "little")
    anything = f"{head}.{body}.{text(neutral + bytes(32))}"  # R = S B - k A holds, whatever was signed
    field = 2**255 - 19
    keys = (
        ("not_on_curve", "a key that is no point", (2).to_bytes(32, "little"), token()),
        ("order_1", "the neutral element: it verifies anything", neutral, anything),
        ("order_1_second_form", "the neutral element, y = p + 1", (field + 1).to_bytes(32, "little"), anything),
        ("order_1_negative_zero", "the neutral element, x = -0", (1 | 1 << 255).to_bytes(32, "little"), anything),
        ("order_2", "a key of order 2", (field - 1).to_bytes(32, "little"), _for_order(2, field - 1)),
        ("order_4", "a key of order 4", bytes(32), _for_order(4, 0)),
        ("short", "a key of 31 bytes", PUBLIC[:31], token()),
        ("negated", "the sign of the key changed", bytes([*PUBLIC[:31], PUBLIC[31] ^ 0x80]), token()),
    )
    for name, about, raw, said in keys:
        yield case(f"key_{name}", about, INVALID, payload(said), grant_key_x=text(raw))


def _for_order(order: int, y: int) -> str:
    """Return a token that such a key verifies: its hash is a multiple of the order, so k A is neutral."""
    neutral, key = (1).to_bytes(32, "little"), y.to_bytes(32, "little")
    for iat in range(SECOND, SECOND + 1000):
        head, body, _ = token(claims(iat=iat)).split(".")
        k = int.from_bytes(hashlib.sha512(neutral + key + f"{head}.{body}".encode()).digest(), "little") % ORDER
        if k % order == 0:
            return f"{head}.{body}.{text(neutral + bytes(32))}"
    raise ValueError("no such token")


def duplicates() -> Iterator[dict[str, Any]]:
    """Yield objects with two members of one name: parsers differ in which they take."""
    twice = payload().replace('"params":{}', '"params":{"recordings":"wipe"},"params":{}')
    yield case("duplicate_params", "params twice in the payload", None, twice)
    inside = payload().replace('"params":{}', '"params":{"n":1,"n":1}')
    yield case("duplicate_in_params", "a name twice in the params", None, inside)
    escaped = payload().replace('"type"', '"id":"cmd_OTHER","\\u0069d"', 1)
    yield case("duplicate_by_escape", "id twice, once as \\u0069d", None, escaped)
    for name, header in (
        ("last", b'{"alg":"none","alg":"EdDSA"}'),
        ("first", b'{"alg":"EdDSA","alg":"none"}'),
    ):
        said = payload(token(header=header))
        yield case(f"duplicate_alg_{name}", f"alg twice, EdDSA {name}, signed", INVALID, said)
    said = compact(claims()).replace(b'"aud"', b'"aud":"dev_OTHER","aud"')
    yield case("duplicate_claims", "aud twice, signed", INVALID, payload(token(said)))


def stale() -> Iterator[dict[str, Any]]:
    """Yield what the gateway signed, and what is not to be done, with the code that says why."""
    gone = timed(SECOND - 60, EARLIER)
    yield case("expired", "a minute after its exp", "expired", gone, topic="reboot")
    now = timed(SECOND, "2025-11-20T08:00:00.000Z")
    yield case("expired_now", "at its exp", "expired", now, topic="reboot")
    for name, generation, code in (
        ("older", GENERATION - 1, "stale_generation"),
        ("newer", GENERATION + 1, "generation_mismatch"),
    ):
        said = payload(token(claims(gen=generation)), binding_generation=generation)
        yield case(f"generation_{name}", f"signed for an {name} binding".replace("an n", "a n"), code, said)
    unknown = payload(token(claims(cmd="self_destruct")), type="self_destruct")
    yield case("unknown_type", "signed, but of no known type", "unknown_command", unknown, topic="self_destruct")
    for name, last in (("lower", {"seq": SEQ + 1, "id": "cmd_LATER"}), ("equal", {"seq": SEQ, "id": "cmd_OTHER"})):
        more = {"last_sequences": {"factory_reset": last}}
        yield case(f"seq_{name}", f"a seq {name} to that of another command", "stale_sequence", payload(), **more)


def malformed() -> Iterator[dict[str, Any]]:
    """Yield what is no command at all. A device answers nothing: it knows no id to answer about."""
    whole = payload()
    yield case("payload_64_kib", "64 KiB of blanks after a good command", None, whole, trailing_blanks=65_536)
    for name, about, said in (
        ("not_json", "a payload cut off", whole[:-1]),
        ("trailing_text", "a second value behind the first", f"{whole}{{}}"),
        ("trailing_comma", "a comma before the closing brace", f"{whole[:-1]},}}"),
        ("list", "the command in a list", f"[{whole}]"),
        ("single_quotes", "single quotes", whole.replace('"', "'")),
        ("control_character", "a line end inside of a string", whole.replace('"id":"', '"id":"\n')),
        ("generation_text", "the generation as a string", payload(binding_generation="3")),
        ("generation_fraction", "the generation as 3.0", payload(binding_generation=3.0)),
        ("generation_true", "the generation as true", payload(binding_generation=True)),
        ("grant_missing", "no grant_token", whole.replace("grant_token", "grant_tokens")),
        ("expires_at_no_offset", "a time without an offset", payload(expires_at="2025-11-20T08:01:00")),
        ("deep", "params nested 2000 levels deep", whole.replace("{}", '{"a":' * 2000 + "1" + "}" * 2000)),
    ):
        yield case(f"payload_{name}", about, None, said)


def new_grant_key() -> dict[str, Any]:
    """Return the commands by which a device gets another grant key: signed with the old one, then with the new one."""
    params = public(NEW_KEY)

    def sent(command: str, seq: int, key: Ed25519PrivateKey) -> dict[str, str]:
        said = claims(jti=command, cmd="set_grant_key", par=par(params), seq=seq)
        grant = token(said, {**HEADER, "kid": public(key)["kid"]}, key)
        return {"command_id": command, "grant_token": grant, "receipt_executed": receipt("executed", command)}

    return {
        "params": params,
        "canonical": rfc8785.dumps(params).decode(),
        "par": par(params),
        "announcement": sent("cmd_01KAG0000000000000000NEWKY", 1, KEY),
        "confirmation": sent("cmd_01KAG0000000000000000PRVKY", 2, NEW_KEY),
    }


def new_keys() -> Iterator[dict[str, Any]]:
    """Yield keys that the old key announces, signed as they are: one that a device takes, and what is no key."""
    key = public(NEW_KEY)
    small = text((1).to_bytes(32, "little"))
    second_form = text((2**255 - 18).to_bytes(32, "little"))
    for name, about, answer, params in (
        ("good", "a new key", "delivered", key),
        ("known", "the key that the device has", "delivered", public(KEY)),
        ("other_kind", "kty RSA", INVALID_KEY, {**key, "kty": "RSA"}),
        ("other_curve", "crv Ed448", INVALID_KEY, {**key, "crv": "Ed448"}),
        ("other_alg", "alg none", INVALID_KEY, {**key, "alg": "none"}),
        ("short", "a key of 31 bytes", INVALID_KEY, {**key, "x": text(NEW_KEY.public_key().public_bytes_raw()[:31])}),
        ("small_order", "the neutral element", INVALID_KEY, {**key, "x": small}),
        ("second_form", "the neutral element, y = p + 1", INVALID_KEY, {**key, "x": second_form}),
        ("padded", "x with padding", INVALID_KEY, {**key, "x": key["x"] + "="}),
        ("kid_long", "a kid of 65 characters", INVALID_KEY, {**key, "kid": "k" * 65}),
        ("kid_missing", "no kid", INVALID_KEY, {each: key[each] for each in key if each != "kid"}),
        ("nothing", "no params", INVALID_KEY, {}),
    ):
        grant = token(claims(cmd="set_grant_key", par=par(params)))
        said = payload(grant, type="set_grant_key", params=params)
        yield case(f"new_key_{name}", about, answer, said, topic="set_grant_key")
    own = payload(token(claims(cmd="set_grant_key", par=par(key)), key=NEW_KEY), type="set_grant_key", params=key)
    yield case("new_key_by_itself", "a new key that signs for itself", INVALID, own, topic="set_grant_key")


def document() -> dict[str, Any]:
    """Return the whole document."""
    key = hashlib.sha256(TOKEN.encode()).digest()
    kinds = (
        good,
        algorithms,
        differing_claims,
        damaged_tokens,
        bad_keys,
        duplicates,
        stale,
        malformed,
        new_keys,
        recordings,
    )
    return {
        "device_token": TOKEN,
        "mqtt_password": text(hmac.new(TOKEN.encode(), b"mqtt", hashlib.sha256).digest()),
        "receipt_key_hex": key.hex(),
        "device_id": DEVICE,
        "command_id": COMMAND,
        "binding_generation": GENERATION,
        "now": "2025-11-20T08:00:00.000Z",
        "receipts": {status: receipt(status) for status in ("delivered", "executed", "failed")},
        "grant_key": public(KEY),
        "grant_token": token(),
        "set_grant_key": new_grant_key(),
        "params": [{"params": each, "canonical": rfc8785.dumps(each).decode(), "par": par(each)} for each in PARAMS],
        "commands": [each for kind in kinds for each in kind()],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(document(), indent=1) + "\n")
