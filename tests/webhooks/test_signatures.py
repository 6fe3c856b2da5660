"""Deliveries checked by the library that Standard Webhooks publishes, which has never seen a line of the gateway."""

import hashlib
import hmac
import json

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from tests.http.support import Api, body
from tests.support.receiver import Received, receiving
from tests.support.snippets import ROOT, blocks
from tests.webhooks.support import delivering

OTHER_SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"


async def delivered(api: Api) -> tuple[str, Received]:
    """A webhook's secret, and a delivery to it."""
    async with receiving() as receiver, delivering(api):
        secret = body(await api.back_end.post("/v1/webhooks", json={"url": receiver.url}), 201)["secret"]
        await api.registered("BP-Zoë")
        return secret, (await receiver.got(1))[0]


async def test_the_standard_webhooks_library_verifies_the_signature(api: Api) -> None:
    """With the secret as it was shown, on the bytes as they came."""
    secret, request = await delivered(api)
    assert Webhook(secret).verify(request.body, request.headers) == request.event


async def test_any_modification_is_detected(api: Api) -> None:
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


def passes(secret: str, request: Received) -> bool:
    """Whether the library takes this delivery under this secret."""
    try:
        Webhook(secret).verify(request.body, request.headers)
    except WebhookVerificationError:
        return False
    return True


async def test_a_rotated_secret_signs_until_its_overlap_ends(api: Api) -> None:
    """By the call, by a second rotation, and by time; deliveries that wait are signed as of their try."""
    async with receiving() as receiver, delivering(api):
        made = body(await api.back_end.post("/v1/webhooks", json={"url": receiver.url}), 201)
        at, first = f"/v1/webhooks/{made['id']}", made["secret"]
        assert (made["rotated_at"], made["previous_secret_expires_at"]) == (None, None)

        second = body(await api.back_end.post(f"{at}/rotate", json={"overlap_seconds": 60}), 200)
        assert second["previous_secret_expires_at"] > second["rotated_at"]
        await api.registered("BP-1")
        request = (await receiver.got(1))[0]
        assert [passes(each, request) for each in (first, second["secret"], OTHER_SECRET)] == [True, True, False]
        assert request.headers["x-bota-signature"].count("v1=") == 2

        third = body(await api.back_end.post(f"{at}/rotate", json={"overlap_seconds": 60}), 200)["secret"]
        await api.registered("BP-2")
        request = (await receiver.got(2))[1]
        assert [passes(each, request) for each in (first, second["secret"], third)] == [False, True, True]

        ended = body(await api.back_end.delete(f"{at}/previous-secret"), 200)
        assert ended["previous_secret_expires_at"] is None
        assert "secret" not in ended
        await api.registered("BP-3")
        request = (await receiver.got(3))[2]
        assert [passes(each, request) for each in (second["secret"], third)] == [False, True]
        assert "," not in request.headers["x-bota-signature"]

        fourth = body(await api.back_end.post(f"{at}/rotate", json={"overlap_seconds": 0}), 200)
        assert fourth["previous_secret_expires_at"] is None
        await api.registered("BP-4")
        request = (await receiver.got(4))[3]
        assert [passes(each, request) for each in (third, fourth["secret"])] == [False, True]


async def test_rotation_needs_its_scope(api: Api) -> None:
    """A key without the scope, another project's webhook, and an overlap that is too long: nothing changes."""
    made = body(await api.back_end.post("/v1/webhooks", json={"url": "https://example.com/"}), 201)
    at = f"/v1/webhooks/{made['id']}"
    assert (await api.back_end.post(f"{at}/rotate", json={"overlap_seconds": 2_592_001})).status_code == 400
    assert (await api.back_end.post("/v1/webhooks/wh_other/rotate", json={})).status_code == 404
    assert (await api.back_end.delete("/v1/webhooks/wh_other/previous-secret")).status_code == 404
    assert body(await api.back_end.get(at), 200) == {name: each for name, each in made.items() if name != "secret"}


async def test_the_documented_code_verifies_both_signatures(api: Api) -> None:
    """The program in docs/http.md, as it stands there."""
    secret, request = await delivered(api)
    (code,) = [each.code for each in blocks(ROOT / "docs" / "http.md") if "standardwebhooks" in each.code]
    named = {"webhook-id", "webhook-timestamp", "webhook-signature", "x-bota-timestamp", "x-bota-signature"}
    headers = {name.title(): value for name, value in request.headers.items() if name in named}
    known = {"secret": secret, "body": request.body, "headers": headers, "hmac": hmac, "hashlib": hashlib}
    exec(code, known)  # noqa: S102 - our own document
    assert known["event"] == json.loads(request.body)
