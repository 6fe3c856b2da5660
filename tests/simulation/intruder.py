"""An intruder at the broker, whose own key devices are to obey."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from device_sim.canonical import params_digest
from gateway.core.ids import COMMAND

_KEY = Ed25519PrivateKey.from_private_bytes(b"i" * 32)
_SEQ = 1 << 50


class IntruderKey:
    """The key of the intruder, and commands that announce it."""

    @property
    def public(self) -> dict[str, Any]:
        """The public half as a JWK."""
        x = base64.urlsafe_b64encode(_KEY.public_key().public_bytes_raw()).rstrip(b"=").decode()
        return {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "intruder", "alg": "EdDSA", "use": "sig"}

    def announcement(self, device_id: str, generation: int) -> bytes:
        """A command that is right but for its signature."""
        command_id = f"{COMMAND}ZZZZZZZZZZZZZZZZZZZZINTRUD"
        claims = {"iss": "gw_1", "aud": device_id, "jti": command_id, "cmd": "set_grant_key", "gen": generation}
        claims |= {"iat": 0, "par": params_digest(self.public), "seq": _SEQ}
        grant = jwt.encode(claims, _KEY, algorithm="EdDSA", headers={"kid": "intruder"})
        body = {"id": command_id, "type": "set_grant_key", "binding_generation": generation, "expires_at": None}
        return json.dumps({**body, "params": self.public, "grant_token": grant}).encode()

    def put_into(self, payload: bytes) -> bytes:
        """The gateway's own command, with this key in place of the gateway's."""
        return json.dumps({**json.loads(payload), "params": self.public}).encode()
