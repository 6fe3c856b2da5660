"""Grants and commands of the test vectors: keys, samples, and how each is signed and written."""

import base64
import hashlib
import hmac
import json
from typing import Any

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
NEW_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32, 64)))
STRANGER = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
PUBLIC = KEY.public_key().public_bytes_raw()
TOKEN = "dtok_0123456789ABCDEFGHIJKLMNOPQRSTUVab"  # noqa: S105  # the sample of docs/protocol.md
DEVICE, COMMAND = "dev_01KAG0000000000000000EXAMP", "cmd_01KAG0000000000000000EXAMP"
GENERATION, SEQ = 3, 7
SECOND = 1_763_625_600  # 2025-11-20T08:00:00Z
LATER, EARLIER = "2025-11-20T08:01:00.000Z", "2025-11-20T07:59:00.000Z"
ORDER = 2**252 + 27742317777372353535851937790883648493
INVALID, INVALID_KEY = "grant_invalid", "invalid_grant_key"
HEADER = {"alg": "EdDSA", "kid": "1IG2tMH7J2wbJZnOf8LJzQitKf7LMvoAElsuDMVM54Y", "typ": "JWT"}
CLAIMS = {
    "iss": "gw_EXAMPLE",
    "aud": DEVICE,
    "jti": COMMAND,
    "cmd": "factory_reset",
    "gen": GENERATION,
    "iat": SECOND,
}
BODY = {
    "id": COMMAND,
    "type": "factory_reset",
    "params": {},
    "binding_generation": GENERATION,
    "created_at": "2025-11-20T08:00:00.000Z",
    "expires_at": None,
}
PARAMS = (
    {},
    {"recordings": "keep"},
    {"label": 'Visite ü, "A/B"\n\x07\x7f\\', "minutes": 5},
    {"b": {"z": [True, None, -7], "a": {}}, "\ufb33": 1, "\U0001f600": 2, "a": "x", "B": 0},
    {"whole": 1.0, "largest": 9007199254740991, "half": -0.50, "small": 1e-7, "large": 1e21, "zero": -0.0},
)


def text(raw: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def compact(value: Any) -> bytes:
    """Return JSON as the gateway writes it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def par(params: Any) -> str:
    """Return the digest of params."""
    return text(hashlib.sha256(rfc8785.dumps(params)).digest())


def claims(**changed: Any) -> dict[str, Any]:
    """Return the claims of the reset with these changed; None removes one."""
    said = {**CLAIMS, "par": par({}), "seq": SEQ, **changed}
    return {name: value for name, value in said.items() if value is not None}


def token(
    said: dict[str, Any] | bytes | None = None,
    header: dict[str, Any] | bytes | None = None,
    key: Ed25519PrivateKey = KEY,
) -> str:
    """Return a signed token; bytes stand as they are, whatever they say."""
    parts = [part if isinstance(part, bytes) else compact(part) for part in (header or HEADER, said or claims())]
    signed = ".".join(map(text, parts))
    return f"{signed}.{text(key.sign(signed.encode()))}"


def payload(grant: str | None = None, **fields: Any) -> str:
    """Return the payload of the reset with this grant and these fields; None stands for null."""
    return compact({**BODY, **fields, "grant_token": token() if grant is None else grant}).decode()


def case(name: str, about: str, answer: str | None, said: str, **more: Any) -> dict[str, Any]:
    """Return one vector. `answer` is `delivered`, the code of a `failed`, or None for no answer at all."""
    return {"name": name, "about": about, "answer": answer, "topic": "factory_reset", **more, "payload": said}


def timed(exp: int | None, expires_at: str | None, **changed: Any) -> str:
    """Return a reboot that expires."""
    said = token(claims(cmd="reboot", exp=exp, **changed))
    return payload(said, type="reboot", expires_at=expires_at)


def receipt(status: str, command: str = COMMAND) -> str:
    """Return the receipt of this status of a command."""
    key = hashlib.sha256(TOKEN.encode()).digest()
    return text(hmac.new(key, f"{command}|{status}|{GENERATION}".encode(), hashlib.sha256).digest())


def public(key: Ed25519PrivateKey) -> dict[str, str]:
    """Return the public half as a JWK, with its thumbprint (RFC 7638) as the id."""
    x = text(key.public_key().public_bytes_raw())
    kid = text(hashlib.sha256(compact({"crv": "Ed25519", "kty": "OKP", "x": x})).digest())
    return {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid, "alg": "EdDSA", "use": "sig"}
