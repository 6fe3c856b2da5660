"""Hostile commands: each is wrong in one way only, so the code of the refusal names what the device noticed."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from device_sim.conformance.issuer import Claims, Command, Issuer, SigningKey, base64url, json64, par_of, random_id
from device_sim.wire import rfc3339

Named: TypeAlias = tuple[str, Command]
ORDER_OF_ED25519 = 2**252 + 27742317777372353535851937790883648493
NO_POINT = bytes([2, *[0] * 31])
"""y = 2 with this sign is on no point of the curve, so R of a signature cannot be decoded."""
PAYLOAD_BYTES = 64 * 1024
DEEP = 3000
HOUR = 3600
MAX_INTEGER = 2**53 - 1


def forged(issuer: Issuer) -> Iterator[Named]:
    """Yield the commands with a grant that the gateway did not sign, or not for this command: `grant_invalid`."""
    key = issuer.binding.key
    signatures: dict[str, Callable[[Claims], str]] = {
        "alg none without a signature": unsigned,
        "alg none with a right signature": lambda claims: key.sign(claims, alg="none"),
        "HS256 keyed with the public key": lambda claims: _hs256(key.public, claims),
        "HS256 keyed with x of the JWK": lambda claims: _hs256(base64url(key.public).encode(), claims),
        "signed by another key under the right kid": lambda claims: SigningKey().sign(claims, kid=key.kid),
        "a changed claim under the right signature": lambda claims: _spliced(key, claims),
        "a changed bit in the signature": lambda claims: _signature(key.sign(claims), lambda raw: _flip(raw, 0)),
        "a truncated signature": lambda claims: _signature(key.sign(claims), lambda raw: raw[:-1]),
        "no signature": lambda claims: _signature(key.sign(claims), lambda _raw: b""),
        "two signatures": lambda claims: key.sign(claims) + "." + key.sign(claims).rpartition(".")[2],
        "a non-canonical S": lambda claims: _signature(key.sign(claims), _with_larger_s),
        "R that is no point": lambda claims: _signature(key.sign(claims), lambda raw: NO_POINT + raw[32:]),
        "a token that is not base64url": lambda claims: "*" + key.sign(claims),
    }
    for name, sign in signatures.items():
        yield name, issuer.command(sign=sign)
    generation = issuer.binding.generation
    claims: dict[str, Claims] = {
        "aud of another device": {"aud": random_id("dev")},
        "no aud": {"aud": None},
        "jti of another command": {"jti": random_id("cmd")},
        "no jti": {"jti": None},
        "cmd of another type": {"cmd": "stop_recording"},
        "no cmd": {"cmd": None},
        "gen of another binding": {"gen": generation + 1},
        "gen as a string": {"gen": str(generation)},
        "no gen": {"gen": None},
    }
    for name, changed in claims.items():
        yield name, issuer.command(claims=changed)
    yield "a type that differs from the topic", _on_other_topic(issuer)


def expired(issuer: Issuer) -> Command:
    """Return a command whose time was over an hour ago: `expired`."""
    past = int(time.time()) - HOUR
    return issuer.command(claims={"exp": past}, fields={"expires_at": rfc3339(past * 1000)})


def from_the_future(issuer: Issuer) -> Command:
    """Return a right command of a gateway whose clock is an hour ahead: `iat` must not be checked."""
    return issuer.command(claims={"iat": int(time.time()) + HOUR})


def wrong_params(issuer: Issuer) -> Iterator[Named]:
    """Yield the commands whose params are not those of the grant: `grant_invalid`."""
    signed = {"minutes": 5}
    yield "params that differ from the signed ones", issuer.command(params=signed, fields={"params": {"minutes": 6}})
    yield "params that were added", issuer.command(fields={"params": signed})
    yield "params that were removed", issuer.command(params=signed, fields={"params": {}})
    yield "no par", issuer.command(claims={"par": None})
    yield "par of another value", issuer.command(claims={"par": par_of({"minutes": 6})}, params=signed)
    beyond = {"minutes": MAX_INTEGER + 2}
    digest = base64url(hashlib.sha256(json.dumps(beyond, separators=(",", ":")).encode()).digest())
    yield "an integer beyond 2^53 - 1", issuer.command(claims={"par": digest}, fields={"params": beyond})


def canonical_params() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield right params whose payload differs from their canonical JSON."""
    yield "escapes and other letters", {"label": 'Visite ü, "A/B"\n\u0007\u007f\\', "minutes": 5}
    yield "members sorted by UTF-16 units", {"\ufb33": 1, "\U0001f600": 2, "b": {"z": [True, None, -7], "a": {}}}
    yield "the largest integer", {"largest": MAX_INTEGER}


def wrong_sequences(issuer: Issuer) -> Iterator[Named]:
    """Yield the commands whose `seq` is missing or no number from 1 to 2^53 - 1: `grant_invalid`."""
    values: dict[str, Any] = {
        "no seq": None, "seq 0": 0, "a negative seq": -1, "seq as a string": "7", "seq true": True,
        "a seq with a fraction": 7.5, "seq 2^53": MAX_INTEGER + 1,
    }  # fmt: skip
    for name, value in values.items():
        yield name, issuer.command(claims={"seq": value})


def malformed(issuer: Issuer) -> Iterator[Named]:
    """Yield payloads that a device may ignore or refuse, and must neither obey nor fail on."""
    right = issuer.command()
    body = json.loads(right.payload)
    twice = json.dumps({**body, "params": {"minutes": 6}})[:-1] + f', "params": {json.dumps(body["params"])}}}'
    forged_first = json.dumps({"grant_token": "a.b.c", **{k: v for k, v in body.items() if k != "grant_token"}})
    also = forged_first[:-1] + f', "grant_token": {json.dumps(body["grant_token"])}}}'
    large = json.dumps({**body, "grant_token": "a.b.c", "padding": "x" * (PAYLOAD_BYTES - len(right.payload))})
    payloads = {
        "duplicate key params": twice,
        "duplicate key grant_token": also,
        "64 KiB with a forged grant": large,
        "not JSON": "not JSON",
        "JSON that is no object": "[]",
        "JSON of great depth": "[" * DEEP,
        "no grant_token": json.dumps({name: each for name, each in body.items() if name != "grant_token"}),
        "no id": json.dumps({name: each for name, each in body.items() if name != "id"}),
        "an id that is a number": json.dumps({**body, "id": 7}),
        "params that are no object": json.dumps({**body, "params": []}),
    }
    for name, payload in payloads.items():
        yield name, Command(right.id, right.topic_type, right.generation, payload.encode(), right.seq)
    yield "not UTF-8", Command(right.id, right.topic_type, right.generation, b"\xff\xfe\x00", right.seq)


def unsigned(claims: Claims) -> str:
    """Return a JWT with `alg` none."""
    return f"{json64({'alg': 'none'})}.{json64(claims)}."


def _on_other_topic(issuer: Issuer) -> Command:
    made = issuer.command("stop_recording")
    return Command(made.id, "start_recording", made.generation, made.payload, made.seq)


def _hs256(key: bytes, claims: Claims) -> str:
    signed = f"{json64({'alg': 'HS256', 'typ': 'JWT'})}.{json64(claims)}"
    return f"{signed}.{base64url(hmac.new(key, signed.encode(), hashlib.sha256).digest())}"


def _spliced(key: SigningKey, claims: Claims) -> str:
    head, _, signature = key.sign({**claims, "seq": int(claims["seq"]) + 1}).split(".")
    return f"{head}.{json64(claims)}.{signature}"


def _signature(token: str, change: Callable[[bytes], bytes]) -> str:
    signed, _, signature = token.rpartition(".")
    return f"{signed}.{base64url(change(base64.urlsafe_b64decode(signature + '==')))}"


def _flip(raw: bytes, at: int) -> bytes:
    return bytes([*raw[:at], raw[at] ^ 1, *raw[at + 1 :]])


def _with_larger_s(raw: bytes) -> bytes:
    larger = int.from_bytes(raw[32:], "little") + ORDER_OF_ED25519
    return raw[:32] + larger.to_bytes(32, "little")
