"""Grants: only what the gateway signed for this device, this command and this generation is obeyed."""

import base64
import json
from typing import Any

import jwt
import pytest

from device_sim import grant, wire
from device_sim.sequences import Sequences
from tests.device_sim.support import COMMAND_ID, DEVICE_ID, NOW, Signer, digest_of, make_binding

GOLDEN_KEY = {"kty": "OKP", "crv": "Ed25519", "x": "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg"}
GOLDEN_GRANT = (
    "eyJhbGciOiJFZERTQSIsImtpZCI6ImsxIiwidHlwIjoiSldUIn0.eyJpc3MiOiJnd190ZXN0IiwiYXVkIjoiZGV2XzAxSkNTSU0wMDAwMDAwMD"
    "AwMDAwMDAwMDEiLCJqdGkiOiJjbWRfMDFKQ1NJTTAwMDAwMDAwMDAwMDAwMDAwMSIsImNtZCI6ImZhY3RvcnlfcmVzZXQiLCJnZW4iOjMsImlh"
    "dCI6MTc5MzUzNDQwMCwicGFyIjoiUkJOdm8xV3paNG9SUnEwVzktaGtucFQ3VDhJZjUzNkRFTUJnOWh5cV80byIsInNlcSI6N30.KWxjLm57u4"
    "n1veW1K7dT02st2VkRTH0D8ElX30i-SAsi2uBJyS8lRmNPBBI7kwr20_6-YtN5EW-Igh_tu_l4Dw"
)
SIGNER = Signer()
ALL_CODES = {value for name, value in vars(grant).items() if name.isupper() and isinstance(value, str)}


def refusal(payload: bytes, *, topic_type: str = "factory_reset", generation: int = 3, now: int = NOW) -> str | None:
    """The code with which a device at `generation` refuses; None when it obeys."""
    try:
        binding = make_binding(SIGNER, generation=generation)
        grant.check(wire.parse_command(payload), topic_type, binding, Sequences(generation, {}), now)
    except grant.RefusalError as error:
        return error.code
    return None


def test_the_golden_grant_is_accepted() -> None:
    """A token that was signed once with a fixed Ed25519 key is good for exactly its command."""
    command = wire.Command(COMMAND_ID, "factory_reset", {}, 3, None, GOLDEN_GRANT)
    binding = make_binding(SIGNER)
    assert {**binding.grant_key, **GOLDEN_KEY} == binding.grant_key
    assert grant.check(command, "factory_reset", binding, Sequences(3, {}), NOW) == 7


def test_a_valid_grant_is_accepted() -> None:
    """What the gateway signs now is obeyed."""
    assert refusal(SIGNER.command()) is None


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": None},
        {"iss": ""},
        {"aud": "dev_other"},
        {"aud": [DEVICE_ID]},
        {"aud": None},
        {"jti": "cmd_other"},
        {"jti": None},
        {"cmd": "reboot"},
        {"cmd": None},
        {"gen": 4},
        {"gen": "3"},
        {"gen": True},
        {"gen": None},
        {"exp": NOW // 1000 + 60},
        {"par": digest_of({"minutes": 5})},
        {"par": digest_of({}) + "="},
        {"par": ""},
        {"par": 7},
        {"par": None},
        {"seq": None},
        {"seq": 0},
        {"seq": -1},
        {"seq": 1.0},
        {"seq": "1"},
        {"seq": True},
        {"seq": 2**53},
    ],
)
def test_mismatched_claims_are_refused(claims: dict[str, Any]) -> None:
    """Each claim has to be there and to agree with the device or with the command beside it."""
    assert refusal(SIGNER.command(claims=claims)) == "grant_invalid"


def test_true_is_not_accepted_as_one() -> None:
    """A boolean is no generation, although Python takes it for 1."""
    assert refusal(SIGNER.command(generation=1, claims={"gen": True}), generation=1) == "grant_invalid"


@pytest.mark.parametrize(
    "fields", [{"id": "cmd_other"}, {"type": "reboot"}, {"binding_generation": 4}, {"params": {"recordings": "wipe"}}]
)
def test_mismatched_fields_are_refused(fields: dict[str, Any]) -> None:
    """A payload that was changed around a good grant is refused."""
    assert refusal(SIGNER.command(fields=fields)) == "grant_invalid"


def test_a_grant_for_another_topic_is_refused() -> None:
    """A good command on the topic of another type is refused."""
    assert refusal(SIGNER.command("reboot"), topic_type="factory_reset") == "grant_invalid"


def test_the_expiry_must_match_the_command() -> None:
    """`exp` and `expires_at` are the same moment, to the second, or the command was changed."""
    assert refusal(SIGNER.command("reboot", expires_at=NOW + 5_999), topic_type="reboot") is None
    late = {"expires_at": wire.rfc3339(NOW + 600_000)}
    changed = SIGNER.command("reboot", expires_at=NOW + 5_000, fields=late)
    assert refusal(changed, topic_type="reboot") == "grant_invalid"
    removed = SIGNER.command("reboot", expires_at=NOW + 5_000, fields={"expires_at": None})
    assert refusal(removed, topic_type="reboot") == "grant_invalid"
    for exp in ("soon", float("nan"), float("inf")):
        odd = SIGNER.command("reboot", expires_at=NOW + 5_000, claims={"exp": exp})
        assert refusal(odd, topic_type="reboot") == "grant_invalid"


def test_an_expired_command_is_refused() -> None:
    """At `exp` it is too late; before it is not."""
    command = SIGNER.command("reboot", expires_at=NOW + 5_000)
    assert refusal(command, topic_type="reboot", now=NOW + 4_999) is None
    assert refusal(command, topic_type="reboot", now=NOW + 5_000) == "expired"


@pytest.mark.parametrize(("own", "code"), [(5, "stale_generation"), (3, None), (2, "generation_mismatch")])
def test_another_generation_is_refused(own: int, code: str | None) -> None:
    """Only the device's own generation is obeyed."""
    assert refusal(SIGNER.command(generation=3), generation=own) == code


def test_an_unknown_command_type_is_refused() -> None:
    """A command that the gateway signed and this firmware does not know."""
    assert refusal(SIGNER.command("self_destruct"), topic_type="self_destruct") == "unknown_command"


def test_a_grant_of_another_key_is_refused() -> None:
    """A signature by another key is refused."""
    forger = Signer(b"f" * 32)
    assert refusal(forger.command()) == "grant_invalid"


def _segments(token: str) -> list[str]:
    return token.split(".")


def _b64(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def forgeries() -> dict[str, str]:
    """Tokens that try a known trick each."""
    head, body, signature = _segments(GOLDEN_GRANT)
    claims = jwt.decode(GOLDEN_GRANT, options={"verify_signature": False}, algorithms=["EdDSA"])
    return {
        "no signature": f"{head}.{body}.",
        "algorithm none": f"{_b64({'alg': 'none'})}.{body}.",
        "keyed with the public key": jwt.encode(claims, "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg"),
        "changed claims": f"{head}.{_b64({**claims, 'iss': 'gw_evil'})}.{signature}",
        "changed header": f"{_b64({'alg': 'EdDSA'})}.{body}.{signature}",
        "cut signature": GOLDEN_GRANT[:-4],
        "two parts": f"{head}.{body}",
        "four parts": f"{GOLDEN_GRANT}.x",
        "not base64": "!.!.!",
        "umlauts": "ä.ö.ü",
        "nested": f"{base64.urlsafe_b64encode(b'[' * 10_000).rstrip(b'=').decode()}.{body}.{signature}",
        "empty": "",
        "claims that are a list": SIGNED_LIST,
    }


def _signed_list() -> str:
    """A list, signed with the right key."""
    return jwt.PyJWS().encode(b"[]", SIGNER._key, algorithm="EdDSA")  # noqa: SLF001  # only the key signs what Signer won't


SIGNED_LIST = _signed_list()


@pytest.mark.parametrize("trick", list(forgeries()))
def test_a_forged_grant_is_refused(trick: str) -> None:
    """No known trick passes, and none raises anything but the refusal."""
    assert refusal(SIGNER.command(fields={"grant_token": forgeries()[trick]})) == "grant_invalid"


@pytest.mark.parametrize("key", [{}, {"x": 7}, {"x": "AA"}, {"x": "!"}])
def test_a_malformed_key_refuses_every_grant(key: dict[str, Any]) -> None:
    """A binding whose key is broken obeys no command."""
    binding = make_binding(SIGNER)
    spoilt = type(binding)(binding.device_id, 3, binding.device_token, key, binding.mqtt)
    with pytest.raises(grant.RefusalError) as error:
        grant.check(wire.parse_command(SIGNER.command()), "factory_reset", spoilt, Sequences(3, {}), NOW)
    assert error.value.code == "grant_invalid"


def test_only_signed_refusals_are_stored() -> None:
    """A refusal is kept under the command's id only if the gateway signed that command."""
    kept = {code: grant.RefusalError(code, "").is_signed for code in ALL_CODES}
    signed = {"stale_generation", "expired", "invalid_grant_key", "invalid_params"}
    assert {code for code, keep in kept.items() if keep} == signed
