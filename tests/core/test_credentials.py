"""Secrets: how they are made, what is stored of them, what proves that one was held."""

import base64
import hashlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import credentials
from tests.domain.support import receipt, seeded
from tests.support.mqtt_password import mqtt_password_of

GOLDEN_TOKEN = "dtok_GoldenGoldenGoldenGoldenGolden0001"
GOLDEN_RECEIPT = "a6IfD3yq90ZDvzASFBdCkqiNZkjJhD03huZNTyEcBEA"  # by openssl dgst -sha256 -mac HMAC


def test_a_secret_carries_at_least_190_random_bits() -> None:
    """Contract, section 1. All of the entropy asked for is in the secret: two that differ in one bit differ."""
    asked: list[int] = []

    def entropy(count: int) -> bytes:
        asked.append(count)
        return bytes(count)

    body = credentials.mint("sk_live_", entropy).removeprefix("sk_live_")
    assert asked[0] * 8 >= 190
    assert len(body) * math.log2(62) >= asked[0] * 8
    assert body.isalnum()


@given(st.binary(min_size=25, max_size=25), st.binary(min_size=25, max_size=25))
def test_no_two_random_numbers_give_one_secret(one: bytes, other: bytes) -> None:
    """Minting loses nothing of what was random."""
    same = credentials.mint("dtok_", lambda _: one) == credentials.mint("dtok_", lambda _: other)
    assert same == (one == other)


def test_a_device_token_is_stored_as_hashes() -> None:
    """Its SHA-256 and that of its MQTT password, and Mosquitto's ``$6$`` entry of the password: SHA-512 with a salt."""
    token = credentials.mint_device_token(seeded(3))
    assert token.secret.startswith("dtok_")
    assert token.hash == hashlib.sha256(token.secret.encode()).digest()
    _, kind, salt, digest = token.broker_entry.split("$")
    assert kind == "6"
    assert len(base64.b64decode(salt)) == 12
    password = mqtt_password_of(token.secret)
    assert (token.mqtt_password, token.mqtt_hash) == (password, hashlib.sha256(password.encode()).digest())
    assert base64.b64decode(digest) == hashlib.sha512(password.encode() + base64.b64decode(salt)).digest()
    for secret in (token.secret, password):
        assert secret not in token.broker_entry
        assert secret not in repr(token)


@pytest.mark.parametrize(
    ("restricted", "test", "prefix"),
    [(False, False, "sk_live_"), (False, True, "sk_test_"), (True, False, "rk_live_"), (True, True, "rk_test_")],
)
def test_keys_have_their_prefix(restricted: bool, test: bool, prefix: str) -> None:  # noqa: FBT001 - a table of booleans
    """The four of the contract's section 1."""
    assert credentials.api_key_prefix(restricted=restricted, test=test) == prefix


def test_a_golden_receipt() -> None:
    """Firmware that was flashed with this computation keeps being understood."""
    key = hashlib.sha256(GOLDEN_TOKEN.encode()).digest()
    assert credentials.receipt(key, "cmd_01", "executed", 3) == GOLDEN_RECEIPT
    assert receipt(GOLDEN_TOKEN, "cmd_01", "executed", 3) == GOLDEN_RECEIPT


def test_a_receipt_fits_one_status_command_generation_and_token() -> None:
    """Any other token, command, status or generation gives another receipt; padding is optional."""
    key, other = hashlib.sha256(b"dtok_a").digest(), hashlib.sha256(b"dtok_b").digest()
    good = receipt("dtok_a", "cmd_1", "executed", 3)
    assert credentials.receipt_is_good(good, key, "cmd_1", "executed", 3)
    assert credentials.receipt_is_good(good + "=", key, "cmd_1", "executed", 3)
    assert not credentials.receipt_is_good(good, other, "cmd_1", "executed", 3)
    assert not credentials.receipt_is_good(good, key, "cmd_2", "executed", 3)
    assert not credentials.receipt_is_good(good, key, "cmd_1", "failed", 3)
    assert not credentials.receipt_is_good(good, key, "cmd_1", "executed", 4)


@given(st.text())
def test_no_text_makes_the_check_of_a_receipt_raise(text: str) -> None:
    """Whatever a device sends as a receipt is judged, never a crash."""
    assert not credentials.receipt_is_good(text, b"key", "cmd_1", "executed", 1)


@given(st.text())
def test_no_text_makes_hashing_raise(text: str) -> None:
    """Whatever stands in an Authorization header can be looked up."""
    assert len(credentials.hash_secret(text)) == 32


def test_hashes_are_compared_whole() -> None:
    """Equal is equal, one bit off is not."""
    assert credentials.same_hash(b"ab", b"ab")
    assert not credentials.same_hash(b"ab", b"ac")
