"""Deliveries checked by the library that Standard Webhooks publishes, which has never seen a line of the gateway."""

import hashlib
import hmac
import json

import pytest
from http_support import Api, body
from standardwebhooks import Webhook, WebhookVerificationError
from support.receiver import Received, receiving
from support.snippets import ROOT, blocks
from webhook_worker import delivering

OTHER_SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"


async def delivered(api: Api) -> tuple[str, Received]:
    """A webhook's secret, and a delivery to it."""
    async with receiving() as receiver, delivering(api):
        secret = body(await api.back_end.post("/v1/webhooks", json={"url": receiver.url}), 201)["secret"]
        await api.registered("BP-Zoë")
        return secret, (await receiver.got(1))[0]


async def test_the_librarys_own_check_passes(api: Api) -> None:
    """With the secret as it was shown, on the bytes as they came."""
    secret, request = await delivered(api)
    assert Webhook(secret).verify(request.body, request.headers) == request.event


async def test_whatever_is_changed_on_the_way_is_noticed(api: Api) -> None:
    """Each header, a byte of the body, another webhook's secret."""
    secret, request = await delivered(api)
    changed = {
        "webhook-id": request.headers["webhook-id"] + "x",
        "webhook-timestamp": str(int(request.headers["webhook-timestamp"]) + 1),
        "webhook-signature": "v1," + request.headers["webhook-signature"].partition(",")[2].swapcase(),
    }
    for name, value in changed.items():
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(request.body, {**request.headers, name: value})
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(request.body.replace(b"BP-Zo", b"BP-Zu"), request.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(OTHER_SECRET).verify(request.body, request.headers)


async def test_the_documents_own_words_check_both_signatures(api: Api) -> None:
    """The program in docs/http.md, as it stands there."""
    secret, request = await delivered(api)
    (code,) = [each.code for each in blocks(ROOT / "docs" / "http.md") if "standardwebhooks" in each.code]
    named = {"webhook-id", "webhook-timestamp", "webhook-signature", "x-bota-timestamp", "x-bota-signature"}
    headers = {name.title(): value for name, value in request.headers.items() if name in named}
    known = {"secret": secret, "body": request.body, "headers": headers, "hmac": hmac, "hashlib": hashlib}
    exec(code, known)  # noqa: S102 - our own document
    assert known["event"] == json.loads(request.body)
