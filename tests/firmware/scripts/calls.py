"""Calls functions of the firmware: a line `[name, arguments]` in, a line `[result]` or `{"error": …}` out.

Bytes are written as `hex:…` in both directions.
"""

import json
import sys
import time
from binascii import hexlify, unhexlify

import ed25519
import wire
from sha512 import sha512


def canonical_text(raw):
    """Return the canonical JSON of a JSON text."""
    return b"".join(wire.parts(wire.read_json(raw)))


def verify_ms(public, message, signature):
    """Return the milliseconds that one check of a signature takes."""
    start = time.ticks_us()
    assert ed25519.verify(public, message, signature)
    return time.ticks_diff(time.ticks_us(), start) / 1000


CALLS = {
    "base64url": wire.base64url,
    "binding_from_answer": wire.binding_from_answer,
    "canonical_text": canonical_text,
    "expiry": wire.expiry,
    "hmac_sha256": wire.hmac_sha256,
    "mqtt_password": wire.mqtt_password,
    "read_json": wire.read_json,
    "receipt": wire.receipt,
    "rfc3339": wire.rfc3339,
    "sha512": sha512,
    "token_from_answer": wire.token_from_answer,
    "unbase64url": wire.unbase64url,
    "verify": ed25519.verify,
    "verify_ms": verify_ms,
}


def given(value):
    """Return an argument."""
    return unhexlify(value[4:]) if isinstance(value, str) and value.startswith("hex:") else value


def shown(value):
    """Return a result as JSON can hold it."""
    return "hex:" + hexlify(value).decode() if isinstance(value, bytes) else value


for line in sys.stdin:
    name, arguments = json.loads(line)
    try:
        answer = [shown(CALLS[name](*[given(each) for each in arguments]))]
    except ValueError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer))
