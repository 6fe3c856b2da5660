"""Fuzzing of what a device receives: commands, grants and the key of its bind. It obeys its gateway alone."""

import base64
import hashlib
import json
import random
from pathlib import Path
from typing import Any

import jwt
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import strategies as st

from device_sim import Binding, Device, State, grant, wire
from device_sim.actions import Action, CommandReceived, PowerOn, Publish, RecordFact, WriteFlash
from device_sim.binding import PAIRING, TOKEN
from device_sim.sequences import SEQUENCES, Sequences
from tests.support.fuzzing import JSON, TEXTS, Target, encoded, fuzz, leaks, mangled, objects

CORPUS = Path(__file__).parent / "corpus"
NOW = 1_794_312_000_000
OWN, STRANGE = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2))
GENERATION = 3


def _jwk(key: Ed25519PrivateKey) -> dict[str, str]:
    x = base64.urlsafe_b64encode(key.public_key().public_bytes_raw()).rstrip(b"=").decode()
    return {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "k", "alg": "EdDSA", "use": "sig"}


ANSWER = {
    "id": "dev_A",
    "binding_generation": GENERATION,
    "device_token": "dtok_own",
    "grant_key": _jwk(OWN),
    "mqtt": {"host": "127.0.0.1", "port": 1883, "topics": {"heartbeat": "devices/dev_A/heartbeat"}},
}
BINDING = Binding.from_answer(ANSWER)

CLAIMS: dict[str, Any] = {
    "iss": "gw_1",
    "aud": "dev_A",
    "jti": "cmd_A",
    "cmd": "factory_reset",
    "gen": GENERATION,
    "iat": NOW // 1000,
    "exp": NOW // 1000 + 60,
    "par": "RBNvo1WzZ4oRRq0W9-hknpT7T8If536DEMBg9hyq_4o",
    "seq": 1,
}
PAYLOAD: dict[str, Any] = {
    "id": "cmd_A",
    "type": "factory_reset",
    "params": {},
    "binding_generation": GENERATION,
    "created_at": wire.rfc3339(NOW),
    "expires_at": wire.rfc3339(NOW + 60_000),
}


def _granted(claims: dict[str, Any], payload: dict[str, Any], key: Ed25519PrivateKey) -> bytes:
    try:
        token = jwt.encode(claims, key, algorithm="EdDSA")
    except (TypeError, ValueError):  # PyJWT minds what some claims are
        token = "a.b.c"
    return json.dumps({**payload, "grant_token": token}).encode()


_MOMENTS = st.sampled_from([wire.rfc3339(NOW + 60_000), wire.rfc3339(NOW - 1), "0001-01-01T00:00:00+23:59", "x", None])
_CLAIMS = objects({name: st.just(value) for name, value in CLAIMS.items()}).map(lambda some: {**CLAIMS, **some})
_PAYLOADS = objects({name: st.just(value) for name, value in PAYLOAD.items()} | {"expires_at": _MOMENTS}).map(
    lambda some: {**PAYLOAD, **some}
)
_GRANTED = st.builds(_granted, _CLAIMS, _PAYLOADS, st.sampled_from([OWN, OWN, STRANGE]))
COMMANDS = Target("commands", 0.12, st.one_of(_GRANTED, _GRANTED, mangled(_GRANTED), encoded(JSON)))


def test_random_commands_never_break_the_device() -> None:
    """Obeyed is what the gateway of this bind signed for this device, generation and moment; all else is refused."""

    def check(raw: bytes) -> None:
        obeyed = _is_obeyed(raw)
        assert obeyed == _obeys(raw), raw

    fuzz(COMMANDS, check, CORPUS / "commands.json")


def _is_obeyed(raw: bytes) -> bool:
    """What the firmware's own parts say; nothing but their two refusals may come out of them."""
    try:
        command = wire.parse_command(raw)
        grant.check(command, "factory_reset", BINDING, Sequences(BINDING.generation, {}), NOW)
    except wire.MalformedError:
        return False
    except grant.RefusalError as refusal:
        _is_a_good_refusal(refusal.message)
        return False
    _holds(command)
    return True


def _is_a_good_refusal(message: str) -> None:
    assert message
    assert leaks(message) == []


def _holds(command: wire.Command) -> None:
    """By another library: the gateway's key signed these very claims."""
    claims = jwt.decode(
        command.grant_token,
        OWN.public_key(),
        algorithms=["EdDSA"],
        options={
            "verify_aud": False,
            "verify_exp": False,
            "verify_iat": False,
            "verify_sub": False,
            "verify_jti": False,
        },
    )
    assert (claims["aud"], claims["jti"], claims["cmd"]) == ("dev_A", command.id, "factory_reset")
    assert claims["gen"] == GENERATION == command.binding_generation
    digest = base64.urlsafe_b64encode(hashlib.sha256(rfc8785.dumps(dict(command.params))).digest())
    assert claims["par"] == digest.rstrip(b"=").decode()
    assert isinstance(claims["seq"], int)
    assert claims["seq"] > 0
    assert claims.get("exp") is None or claims["exp"] * 1000 > NOW


def _obeys(raw: bytes) -> bool:
    """Whether a whole device takes it on; what it says must be what the contract's own parser reads."""
    device = Device(random.Random(1))  # noqa: S311 - a simulation
    device.handle(PowerOn(wiped={PAIRING: BINDING.pairing(), TOKEN: BINDING.device_token}, kept={}), NOW)
    actions = device.handle(CommandReceived("factory_reset", raw), NOW)
    words = [json.loads(action.payload) for action in actions if isinstance(action, Publish)]
    assert all(isinstance(action, RecordFact | Publish) or may_be_kept(action, words) for action in actions)
    assert device.state is State.PROVISIONED  # whatever it was told, it is wiped only after its word was confirmed
    return [word["status"] for word in words] == ["delivered"]


def may_be_kept(action: Action, words: list[dict[str, Any]]) -> bool:
    """Into the flash goes a refusal that the gateway has signed for, or the number of what is about to be obeyed."""
    said = [word["status"] for word in words]
    return said == (["delivered"] if isinstance(action, WriteFlash) and action.name == SEQUENCES else ["failed"])


_KEYS = objects({name: st.just(value) | TEXTS for name, value in _jwk(OWN).items()})
_ANSWERS = objects({name: st.just(value) for name, value in ANSWER.items()} | {"grant_key": _KEYS}).map(
    lambda some: {**ANSWER, **some}
)
BINDS = Target("binds", 0.03, encoded(_ANSWERS))
GOOD = _granted(CLAIMS, PAYLOAD, OWN)
NOT_A_BIND = (KeyError, TypeError, ValueError, AttributeError, OverflowError)
"""What `Binding.from_answer` is known to raise; the companion app turns them into its own error."""


def test_random_bind_answers_never_break_the_device() -> None:
    """A bind answer, with whatever key: it is no bind, or the device obeys by that key alone."""

    def check(raw: bytes) -> None:
        try:
            answer = json.loads(raw)
            binding = Binding.from_answer(answer)
        except (*NOT_A_BIND, RecursionError):
            return
        command = wire.parse_command(GOOD)
        try:
            grant.check(command, "factory_reset", binding, Sequences(binding.generation, {}), NOW)
        except grant.RefusalError:
            return
        assert base64.urlsafe_b64decode(binding.grant_key["x"] + "==") == OWN.public_key().public_bytes_raw()

    fuzz(BINDS, check, CORPUS / "binds.json")
