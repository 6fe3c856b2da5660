"""Signatures of webhooks, against bytes that others made (contract, section 5)."""

import base64
import re
from pathlib import Path

import pytest

import gateway
from gateway.core import webhook_signing
from gateway.core.redaction import redact
from gateway.models.events import EventType
from tests.domain.support import seeded

KEY = bytes(range(24))
SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"
EVENT_ID = "evt_01JD3N0A1B2C3D4E5F6G7H8J9M"
TIMESTAMP = 1_794_312_000
BODY = (
    '{"id":"evt_01JD3N0A1B2C3D4E5F6G7H8J9M","type":"reset.completed","created_at":"2026-11-10T12:00:00.000Z",'
    '"data":{"name":"Zoë"}}'
).encode()
# By the package standardwebhooks 1.1.0 (Webhook(SECRET).sign), and by
#   printf '%s.%s.%s' EVENT_ID TIMESTAMP BODY | openssl dgst -sha256 -mac HMAC -macopt hexkey:000102…17 -binary | base64
STANDARD = "v1,Afl2SXlkjDRzllWtUWOSYyAQxl1n2gwvbX3Hr/Zk8p4="
# By printf '%s.%s' TIMESTAMP BODY | openssl dgst -sha256 -hmac SECRET
OWN = "v1=728f02830e2bc24a920ea3df2dab1bad002ecb61d15d4346e11e8ff5b1f39dbd"


def test_headers_match_the_golden_ones() -> None:
    """Both signatures, the ids and the time: to the letter what a receiver with other software expects."""
    assert webhook_signing.headers((KEY,), EVENT_ID, TIMESTAMP, BODY) == {
        "webhook-id": EVENT_ID,
        "webhook-timestamp": "1794312000",
        "webhook-signature": STANDARD,
        "X-Bota-Event-Id": EVENT_ID,
        "X-Bota-Timestamp": "1794312000",
        "X-Bota-Signature": OWN,
    }


def test_during_an_overlap_each_header_has_both_signatures_the_new_one_first() -> None:
    """Separated as Standard Webhooks says; outside an overlap nothing differs from before."""
    other = bytes(reversed(KEY))
    both = webhook_signing.headers((other, KEY), EVENT_ID, TIMESTAMP, BODY)
    alone = webhook_signing.headers((other,), EVENT_ID, TIMESTAMP, BODY)
    assert both["webhook-signature"] == f"{alone['webhook-signature']} {STANDARD}"
    assert both["X-Bota-Signature"] == f"{alone['X-Bota-Signature']},{OWN}"


def test_the_documentation_shows_the_golden_headers() -> None:
    """The samples in docs/http.md are right for an author of a receiver, types of events included."""
    shown = (Path(gateway.__file__).parent.parent / "docs" / "http.md").read_text(encoding="utf-8")
    for part in (SECRET, STANDARD, OWN, f"\n\n{BODY.decode()}\n"):
        assert part in shown
    for kind in EventType:
        family, _, rest = kind.partition(".")
        assert re.search(rf"\| `{family}\.…` \|.*`{rest}`", shown), kind


def test_a_secret_has_the_standard_webhooks_format() -> None:
    """``whsec_`` and base64 of the very bytes that sign."""
    assert webhook_signing.secret(KEY) == SECRET
    assert base64.b64decode(SECRET.removeprefix("whsec_")) == KEY


@pytest.mark.parametrize("seed", range(50))
def test_a_new_secret_has_enough_bits_and_never_reaches_a_log(seed: int) -> None:
    """At least 190 random bits, and redaction knows it in every form that base64 gives it."""
    key = webhook_signing.mint_key(seeded(seed))
    secret = webhook_signing.secret(key)
    assert len(key) * 8 >= 190
    assert redact(f"the secret {secret} leaked") == "the secret whsec_… leaked"
