"""Gateway's side of a binding: tokens, bind answers, and signed commands. Each part can be made wrong on purpose."""

import base64
import hashlib
import itertools
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from device_sim.wire import COMMAND_TYPES, Topics, receipt, rfc3339

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
ISSUER = "gw_CONFORMANCE"
FIRST_GENERATION = 3
GENERATION_STEP = 5_000_000
"""A restored registry raises generations by millions (contract, section 1)."""

SET_GRANT_KEY = "set_grant_key"
REQUIRED_TYPES = tuple(each for each in COMMAND_TYPES if each != SET_GRANT_KEY)
"""The types that each firmware knows. `set_grant_key` is optional."""

Claims: TypeAlias = Mapping[str, Any]
Sign: TypeAlias = Callable[[Claims], str]


def base64url(raw: bytes) -> str:
    """Return unpadded base64url."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def json64(value: Any) -> str:
    """Return base64url of compact JSON, a part of a JWT."""
    return base64url(json.dumps(value, separators=(",", ":")).encode())


def random_id(kind: str) -> str:
    """Return a new id such as `cmd_…`."""
    return f"{kind}_" + "".join(secrets.choice(ALPHABET) for _ in range(26))


def new_token() -> str:
    """Return a new device token."""
    return f"dtok_{secrets.token_hex(19)}"


class SigningKey:
    """Ed25519 key that signs grants."""

    def __init__(self) -> None:
        self.private = Ed25519PrivateKey.generate()
        self.public = self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        thumbprint = {"crv": "Ed25519", "kty": "OKP", "x": base64url(self.public)}
        self.kid = base64url(hashlib.sha256(rfc8785.dumps(thumbprint)).digest())

    @property
    def jwk(self) -> dict[str, str]:
        """Return the public half as a bind answers it."""
        x = base64url(self.public)
        return {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": self.kid, "alg": "EdDSA", "use": "sig"}

    def sign(self, claims: Claims, **header: Any) -> str:
        """Return a JWT over these claims; `header` replaces members of its header."""
        head = json64({"alg": "EdDSA", "kid": self.kid, "typ": "JWT", **header})
        signed = f"{head}.{json64(claims)}"
        return f"{signed}.{base64url(self.private.sign(signed.encode()))}"


@dataclass
class Binding:
    """One bind of the device. `token` is the newest one; a refresh replaces it."""

    generation: int
    token: str = field(default_factory=new_token, repr=False)
    key: SigningKey = field(default_factory=SigningKey, repr=False)
    former: list[str] = field(default_factory=list, repr=False)
    sequences: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COMMAND_TYPES, 0))

    def refresh(self, token: str) -> None:
        """Replace the token, as a refresh does."""
        self.former.append(self.token)
        self.token = token

    def next_sequence(self, command_type: str) -> int:
        """Return the next `seq` of a type. It rises by two, so that a number in between is free."""
        self.sequences[command_type] += 2
        return self.sequences[command_type]


@dataclass(frozen=True)
class Command:
    """A command as it is published. `topic_type` names its topic."""

    id: str
    topic_type: str
    generation: int
    payload: bytes = field(repr=False)
    seq: int

    def receipt(self, token: str, status: str) -> str:
        """Return the receipt that the holder of the token makes."""
        return receipt(token, self.id, status, self.generation)


class Issuer:
    """Everything that the gateway knows about the device under test."""

    def __init__(self, serial: str, prefix: str) -> None:
        self.serial = serial
        self.device_id = random_id("dev")
        self.topics = Topics(self.device_id, prefix)
        self._generations = itertools.count(FIRST_GENERATION, GENERATION_STEP)
        self.bindings = [Binding(next(self._generations))]

    @property
    def tokens(self) -> list[str]:
        """Return every token that the device got, in any bind or refresh."""
        return [token for binding in self.bindings for token in (*binding.former, binding.token)]

    @property
    def binding(self) -> Binding:
        """Return the newest binding."""
        return self.bindings[-1]

    def bind(self) -> None:
        """Begin another binding, with another key and a generation that is millions higher."""
        self.bindings.append(Binding(next(self._generations)))

    def command(
        self,
        command_type: str = "start_recording",
        *,
        params: Mapping[str, Any] | None = None,
        seq: int | None = None,
        generation: int | None = None,
        command_id: str | None = None,
        claims: Claims | None = None,
        fields: Mapping[str, Any] | None = None,
        sign: Sign | None = None,
    ) -> Command:
        """Return a command that the device has to obey, as far as the arguments leave it right.

        `claims` replaces claims of the grant (None removes one), `fields` replaces members of the payload, and `sign`
        makes the grant.
        """
        binding = self.binding
        given = {} if params is None else params
        number = binding.next_sequence(command_type) if seq is None else seq
        made = command_id or random_id("cmd")
        said = binding.generation if generation is None else generation
        grant = {
            "iss": ISSUER,
            "aud": self.device_id,
            "jti": made,
            "cmd": command_type,
            "gen": said,
            "iat": int(time.time()),
            "par": par_of(given),
            "seq": number,
            **(claims or {}),
        }
        body = {
            "id": made,
            "type": command_type,
            "params": given,
            "binding_generation": said,
            "created_at": rfc3339(int(time.time() * 1000)),
            "expires_at": None,
            "grant_token": (sign or binding.key.sign)({name: each for name, each in grant.items() if each is not None}),
            **(fields or {}),
        }
        return Command(made, command_type, said, json.dumps(body).encode(), number)

    def answer(self, address: Mapping[str, Any], password: str, heartbeat_seconds: float) -> dict[str, Any]:
        """Return the answer of a bind, as the companion app writes it to the device."""
        topics = self.topics
        return {
            "id": self.device_id,
            "serial_number": self.serial,
            "status": "bound",
            "end_user_id": "eu_conformance",
            "binding_generation": self.binding.generation,
            "heartbeat_interval_seconds": heartbeat_seconds,
            "device_token": self.binding.token,
            "mqtt": {
                **address,
                "username": self.device_id,
                "password": password,
                "client_id": self.device_id,
                "topics": {
                    "heartbeat": topics.of("heartbeat"),
                    "status": topics.of("status"),
                    "commands": {each: topics.command(each) for each in COMMAND_TYPES},
                    "errors": topics.of("errors"),
                },
            },
            "grant_key": self.binding.key.jwk,
        }


def par_of(params: Mapping[str, Any]) -> str:
    """Return the digest of params, by a library that no device under test uses."""
    return base64url(hashlib.sha256(rfc8785.dumps(dict(params))).digest())
