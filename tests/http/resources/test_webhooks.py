"""Webhooks over HTTP: made, shown, changed, deleted; the secret once, and nothing to strangers."""

import json

import pytest
from structlog.testing import capture_logs

from gateway.models.events import EventType
from tests.http.support import JSON, Api, Json, body, error
from tests.support.receiver import receiving
from tests.webhooks.support import delivering

PATH = "/v1/webhooks"
URL = "https://example.com/hooks"


async def created(api: Api, **fields: object) -> Json:
    """A webhook just made, with its secret."""
    return body(await api.back_end.post(PATH, json={"url": URL, **fields}), 201)


async def test_the_secret_is_shown_once(api: Api) -> None:
    """With the answer to the creation; never again, and not in a log."""
    with capture_logs() as logs:
        webhook = await created(api, events=["reset.completed"], description="Returns desk")
        secret = webhook.pop("secret")
        assert secret.startswith("whsec_")
        assert body(await api.back_end.get(f"{PATH}/{webhook['id']}"), 200) == webhook
        assert body(await api.back_end.get(PATH), 200)["data"] == [webhook]
    rotation = {"rotated_at", "previous_secret_expires_at"}
    assert set(webhook) == {"id", "url", "events", "description", "enabled", "created_at"} | rotation
    assert webhook["id"].startswith("wh_")
    assert secret[:13] not in json.dumps(logs, default=str)
    assert secret not in "".join(api.dump())


async def test_omitted_fields_have_defaults(api: Api) -> None:
    """Every type, switched on, no description."""
    webhook = await created(api)
    assert (webhook["events"], webhook["enabled"], webhook["description"]) == (["*"], True, None)


async def test_every_event_type_can_be_subscribed(api: Api) -> None:
    """Each once, in the order they were given."""
    types = list(EventType)
    assert (await created(api, events=[*types, types[0]]))["events"] == types


async def test_webhooks_are_paged(api: Api) -> None:
    """Newest first."""
    ids = [(await created(api))["id"] for _ in range(5)]
    first = body(await api.back_end.get(PATH, params={"limit": "3"}), 200)
    second = body(await api.back_end.get(PATH, params={"limit": "3", "cursor": first["next_cursor"]}), 200)
    assert [each["id"] for each in first["data"] + second["data"]] == ids[::-1]
    assert (first["has_more"], second["has_more"], second["next_cursor"]) == (True, False, None)
    error(await api.back_end.get(PATH, params={"cursor": "junk"}), 400, "invalid_request")


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ({}, "url"),
        ({"url": None}, "url"),
        ({"url": ""}, "url"),
        ({"url": "example.com"}, "url"),
        ({"url": "ftp://example.com"}, "url"),
        ({"url": "https://user:pw@example.com/"}, "url"),
        ({"url": "https://example.com/#x"}, "url"),
        ({"url": "https://10.0.0.1/"}, "url"),
        ({"url": "https://[fe80::1]/"}, "url"),
        ({"url": "http://example.com/"}, "url"),
        ({"url": f"{URL}/{'x' * 2_048}"}, "url"),
        ({"url": URL, "events": []}, "events"),
        ({"url": URL, "events": "reset.completed"}, "events"),
        ({"url": URL, "events": ["reset.exploded"]}, "events.0"),
        ({"url": URL, "events": ["*", "reset.completed"]}, "events"),
        ({"url": URL, "description": "x" * 257}, "description"),
        ({"url": URL, "description": "a\0b"}, "description"),
        ({"url": URL, "enabled": "yes"}, "enabled"),
        ({"url": URL, "enabled": None}, "enabled"),
        ({"url": URL, "secret": "whsec_mine"}, "secret"),
    ],
)
async def test_an_invalid_field_is_refused(api: Api, content: Json, field: str) -> None:
    """400 that names it, at creation and at a change, and repeats no password; nothing is made or changed."""
    webhook = await created(api)
    before = api.dump()
    answer = error(await api.back_end.post(PATH, json=content), 400, "invalid_request")
    assert (answer["details"]["field"], answer["message"].partition(":")[0]) == (field, field)
    assert "pw@" not in json.dumps(answer)
    if content:
        answer = error(await api.back_end.patch(f"{PATH}/{webhook['id']}", json=content), 400, "invalid_request")
        assert answer["details"]["field"] == field
    assert api.dump() == before


async def test_plain_http_is_allowed_for_loopback_only(api: Api) -> None:
    """``http://127.0.0.1`` is fine for trying things out."""
    for url in ("http://127.0.0.1:9000/hook", "http://localhost:9000", "http://[::1]:9000/"):
        assert (await created(api, url=url))["url"] == url


async def test_a_change_leaves_the_rest(api: Api) -> None:
    """Field by field; an empty one changes nothing."""
    webhook = await created(api, description="one")
    del webhook["secret"]
    path = f"{PATH}/{webhook['id']}"
    for change in (
        {"enabled": False},
        {"description": None},
        {"events": ["device.bound"]},
        {"url": f"{URL}/new"},
        {"description": "two", "enabled": True},
        {},
    ):
        webhook |= change
        assert body(await api.back_end.patch(path, json=change), 200) == webhook
    assert body(await api.back_end.get(path), 200) == webhook


async def test_a_deleted_webhook_is_gone(api: Api) -> None:
    """The answer is what it was; after that every call on it is a 404 that says where to look."""
    webhook = await created(api)
    secret = webhook.pop("secret")
    path = f"{PATH}/{webhook['id']}"
    assert body(await api.back_end.delete(path), 200) == webhook
    for answer in (
        await api.back_end.get(path),
        await api.back_end.patch(path, json={"enabled": False}),
        await api.back_end.delete(path),
        await api.back_end.post(f"{path}/test"),
        await api.back_end.get(f"{path}/deliveries"),
        await api.back_end.post(f"{path}/deliveries/dlv_1/replay"),
    ):
        assert "GET /v1/webhooks" in error(answer, 404, "not_found")["message"]
    assert body(await api.back_end.get(PATH), 200)["data"] == []
    assert secret not in "".join(api.dump())


async def test_a_repeated_creation_creates_one_webhook(api: Api) -> None:
    """The same ``Idempotency-Key`` gets the same webhook with the same secret."""
    headers = {"Idempotency-Key": "1f0e"}
    first, second = [await api.back_end.post(PATH, json={"url": URL}, headers=headers) for _ in range(2)]
    assert body(first, 201) == body(second, 201)
    assert len(body(await api.back_end.get(PATH), 200)["data"]) == 1


async def test_another_project_does_not_see_the_webhook(api: Api) -> None:
    """404 on every operation, the same as for an id that is not there; the list leaves it out."""
    webhook = await created(api)
    stranger = api.as_(await api.another_key(project="two"))
    before = api.dump()
    for method, path in (
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", "/test"),
        ("GET", "/deliveries"),
        ("POST", "/deliveries/dlv_1/replay"),
    ):
        theirs = error(await stranger.request(method, f"{PATH}/{webhook['id']}{path}"), 404, "not_found")
        nobodys = error(await stranger.request(method, f"{PATH}/wh_x{path}"), 404, "not_found")
        assert theirs["message"].replace(webhook["id"], "wh_x") == nobodys["message"]
    assert body(await stranger.get(PATH), 200)["data"] == []
    assert api.dump() == before


async def test_each_operation_needs_its_scope(api: Api) -> None:
    """``webhooks:read`` looks, ``webhooks:write`` changes, those of devices alone do neither."""
    webhook = await created(api, url="http://127.0.0.1:9/")
    path = f"{PATH}/{webhook['id']}"
    for scopes, reads, reads_events, tests, changes in (
        (("webhooks:read",), 200, 403, 403, 403),
        (("webhooks:read", "devices:read"), 200, 200, 403, 403),
        (("webhooks:write",), 403, 403, 200, 403),
        (("webhooks:write", "devices:write"), 403, 403, 200, 403),
        (("webhooks:write", "devices:read"), 403, 403, 200, 200),
        (("devices:read", "devices:write"), 403, 403, 403, 403),
    ):
        client = api.as_(await api.another_key(*scopes))
        for answer in (await client.get(PATH), await client.get(path)):
            assert answer.status_code == reads
        assert (await client.get(f"{path}/deliveries")).status_code == reads_events
        assert (await client.post(f"{path}/test")).status_code == tests
        assert (await client.patch(path, json={})).status_code == changes


async def test_a_key_that_may_not_read_devices_gets_no_events_sent(api: Api) -> None:
    """A caller that sets where events go, or enables them, can read them: that takes ``devices:read``, too."""
    async with receiving() as receiver, delivering(api):
        blind = api.as_(await api.another_key("webhooks:read", "webhooks:write"))
        answers = [await blind.post(PATH, json={"url": receiver.url})]
        honest = await created(api, url="https://127.0.0.1:9/", events=["device.registered"], enabled=False)
        path = f"{PATH}/{honest['id']}"
        changes: tuple[Json, ...] = (
            {"url": receiver.url},
            {"enabled": True},
            {"events": ["*"]},
            {"description": "mine"},
        )
        answers += [await blind.patch(path, json=change) for change in changes]
        answers.append(await blind.get(f"{path}/deliveries"))
        answers.append(await blind.post(f"{path}/deliveries/dlv_1/replay"))
        await api.registered()
        await api.bound("BP-2")
        for answer in answers:
            refusal = error(answer, 403, "insufficient_scope")
            assert refusal["details"]["required_scope"] == "devices:read"
            assert refusal["details"]["required_scopes"][1:] == ["devices:read"]
            assert "webhooks:" in refusal["message"]
        watched = await created(api, url=receiver.url)
        await api.registered("BP-3")
        assert [each.event["data"].get("serial_number") for each in await receiver.got(1)] == ["BP-3"]
        assert body(await blind.get(f"{PATH}/{watched['id']}"), 200)["url"] == receiver.url


async def test_a_change_without_a_body_changes_nothing(api: Api) -> None:
    """As everywhere, no body is as good as ``{}``; one that is no JSON is refused."""
    webhook = await created(api)
    path = f"{PATH}/{webhook['id']}"
    body(await api.back_end.patch(path), 200)
    error(await api.back_end.patch(path, content=b"{", headers=JSON), 400, "invalid_request")
    error(await api.back_end.patch(path, content=b"{}"), 415, "unsupported_media_type")
