"""The test vectors that firmware authors are given, recomputed with the standard library and PyJWT alone."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from pathlib import Path
from typing import Any

import jwt
import pytest

DOCUMENT = Path(__file__).parent.parent / "docs" / "protocol.md"


@pytest.fixture(name="vectors")
def vectors_fixture() -> dict[str, Any]:
    """The vectors as they stand in the document."""
    found = re.search(r"```json vectors\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert found is not None
    vectors: dict[str, Any] = json.loads(found[1])
    return vectors


def test_receipts(vectors: dict[str, Any]) -> None:
    """Each receipt is the HMAC that the document describes."""
    key = hashlib.sha256(vectors["device_token"].encode()).digest()
    assert key.hex() == vectors["receipt_key_hex"]
    for status, receipt in vectors["receipts"].items():
        message = f"{vectors['command_id']}|{status}|{vectors['binding_generation']}"
        mac = hmac.new(key, message.encode(), hashlib.sha256).digest()
        assert base64.urlsafe_b64encode(mac).decode().rstrip("=") == receipt


def test_grant(vectors: dict[str, Any]) -> None:
    """The grant verifies with the public key that stands beside it, and says what the document says."""
    key = jwt.PyJWK(vectors["grant_key"])
    claims = jwt.decode(vectors["grant_token"], key, algorithms=["EdDSA"], audience=vectors["device_id"])
    assert claims["jti"] == vectors["command_id"]
    assert claims["cmd"] == "factory_reset"
    assert claims["gen"] == vectors["binding_generation"]
    assert "exp" not in claims
