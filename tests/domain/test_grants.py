"""Grants: the JWT that lets a device obey the gateway and no other sender."""

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from device_sim.canonical import params_digest
from gateway.domain import grants
from gateway.models.bindings import Jwk
from gateway.store import signing_key_sql
from gateway.store.records import DeviceName
from tests.domain.support import NOON, RESET, World, golden

KEY_SEED = bytes(range(32))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A registry whose signing key is known."""
    with World(tmp_path) as opened:
        public = grants._public(KEY_SEED)  # noqa: SLF001 - a key that is not random
        opened.run(signing_key_sql.insert_signing_key, grants._thumbprint(public), public, KEY_SEED)  # noqa: SLF001
        yield opened


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _checked(grant: str, jwk: Jwk) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims, the signature checked by ``cryptography`` alone, as a device does it."""
    header, claims, signature = grant.split(".")
    key = Ed25519PublicKey.from_public_bytes(_decoded(jwk.x))
    key.verify(_decoded(signature), f"{header}.{claims}".encode())
    return json.loads(_decoded(header)), json.loads(_decoded(claims))


def test_the_grant_of_a_reset_names_device_command_and_binding(world: World) -> None:
    """Who, what, with which params, as which of its type; no ``exp`` for a reset; ``kid`` as told at bind."""
    device_id = world.register()
    jwk = world.bind(device_id).grant_key
    command = world.reset(device_id)
    header, claims = _checked(command.grant_token, jwk)
    assert header == {"alg": "EdDSA", "kid": jwk.kid, "typ": "JWT"}
    assert claims == {
        "iss": "gateway",
        "aud": device_id,
        "jti": command.id,
        "cmd": "factory_reset",
        "gen": 1,
        "iat": NOON // 1000,
        "par": _par({"recordings": "keep"}),
        "seq": 1,
    }


def test_a_grant_signs_the_params(world: World) -> None:
    """By their canonical JSON: the order and form of what was sent means nothing."""
    device_id, _ = world.bound()
    jwk = grants.public_key(world.view, world.run(grants.ensure_key))
    params = {"b": [1.0, {"z": None, "y": "é\n"}], "a": 9007199254740991}
    _, claims = _checked(world.create(device_id, params=params).grant_token, jwk)
    assert claims["par"] == _par({"a": 9007199254740991, "b": [1, {"y": "é\n", "z": None}]})


def test_the_number_rises_with_each_command_of_a_type(world: World) -> None:
    """For each device and type apart; across bindings, so that no upgrade or bind begins it again."""
    device_id, _ = world.bound()
    other, _ = world.bound("SN-2")

    def sent(device: str, kind: str) -> int:
        command = world.create(device, kind)
        world.cancel(device, command.id)
        assert command.seq is not None
        return command.seq

    assert [sent(device_id, "reboot") for _ in range(3)] == [1, 2, 3]
    assert (sent(device_id, "trigger_upload"), sent(other, "reboot")) == (1, 1)
    world.unbind(device_id)
    world.bind(device_id)
    assert sent(device_id, "reboot") == 4


def test_a_grant_expires_no_earlier_than_its_command(world: World) -> None:
    """``exp`` counts in whole seconds: it is rounded up."""
    device_id, _ = world.bound()
    world.now = NOON + 1
    jwk = grants.public_key(world.view, world.run(grants.ensure_key))
    _, claims = _checked(world.create(device_id, ttl_seconds=60).grant_token, jwk)
    assert claims["exp"] == NOON // 1000 + 61


def test_another_library_verifies_the_grant(world: World) -> None:
    """PyJWT verifies it with the JWK alone: algorithm, audience, issuer."""
    device_id = world.register()
    jwk = world.bind(device_id).grant_key
    grant = world.reset(device_id).grant_token
    claims = jwt.decode(
        grant,
        jwt.PyJWK(jwk.model_dump()).key,
        algorithms=["EdDSA"],
        audience=device_id,
        issuer="gateway",
        options={"verify_iat": False},
    )
    assert claims["iat"] == NOON // 1000


def test_a_golden_grant(world: World) -> None:
    """Ed25519 is deterministic: the same key and command give the same bytes as when firmware was flashed."""
    device = DeviceName(1, "dev_01", "proj_01")
    command = {"id": "cmd_01", "type": RESET, "binding_generation": 3, "params": {"recordings": "keep"}}
    kid = world.run(grants.ensure_key)

    def sign(tx: Any) -> str:
        return grants.sign(tx, kid=kid, device=device, command=command, seq=7, expires_at=None)

    assert world.run(sign).encode() == golden("grant.jwt")
    _checked(golden("grant.jwt").decode(), grants.public_key(world.view, kid))


def test_a_modified_grant_does_not_verify(world: World) -> None:
    """Claims of one grant under the signature of another fail."""
    device_id, _ = world.bound()
    jwk = grants.public_key(world.view, world.run(grants.ensure_key))
    one, other = (
        world.create(device_id, "reboot").grant_token,
        world.create(device_id, "trigger_upload").grant_token,
    )
    forged = ".".join([*one.split(".")[:2], other.split(".")[2]])
    with pytest.raises(InvalidSignature):
        _checked(forged, jwk)


def test_commands_are_signed_with_the_key_of_the_binding(world: World) -> None:
    """A key that comes later signs for those who are bound later; an older binding keeps its own."""
    device_id = world.register()
    old = world.bind(device_id).grant_key
    world.connection.execute("UPDATE signing_keys SET retired_at = ?", (world.now,))
    newcomer = world.register("SN-2")
    new = world.bind(newcomer).grant_key
    assert new.kid != old.kid
    _checked(world.reset(device_id).grant_token, old)
    _checked(world.reset(newcomer).grant_token, new)


def test_the_key_is_created_once_and_named_by_its_thumbprint(world: World) -> None:
    """RFC 7638: base64url(SHA-256) of the key's required members in lexical order."""
    kid = world.run(grants.ensure_key)
    assert world.run(grants.ensure_key) == kid
    jwk = grants.public_key(world.view, kid)
    assert jwk.model_dump() == {"kty": "OKP", "crv": "Ed25519", "x": jwk.x, "kid": kid, "alg": "EdDSA", "use": "sig"}
    members = json.dumps({"crv": "Ed25519", "kty": "OKP", "x": jwk.x}, separators=(",", ":")).encode()
    assert _decoded(kid) == hashlib.sha256(members).digest()


def test_an_unknown_key_signs_nothing(world: World) -> None:
    """A broken registry is said to be broken, instead of signing with another key."""
    with pytest.raises(LookupError):
        grants.public_key(world.view, "no-such-key")
    with pytest.raises(LookupError):
        world.run(lambda tx: grants.sign(tx, kid="no-such-key", device=_any(tx), command={}, seq=1, expires_at=None))


def _par(params: dict[str, Any]) -> str:
    """The digest that a device computes, by the code of the simulated device."""
    return params_digest(params)


def _any(tx: Any) -> Any:
    return tx.one("SELECT 'dev_1' AS id")
