"""Sessions of people, apart from the provider: what the cookie opens, what changes need, and when it ends."""

import pytest

from gateway.core.roles import Role
from gateway.domain import sessions
from tests.http.sign_in.support import HOUR_MS, in_session, with_cookie
from tests.http.support import Api, body, error, trying

REGISTER = {"serial_number": "BP-9"}


async def test_the_cookie_opens_the_project_of_the_session(api: Api) -> None:
    """With the person's name, role and project; as a caller who is no key."""
    device = await api.registered()
    session = await in_session(api)
    listed = body(await session.client.get("/v1/devices"), 200)["data"]
    assert [each["id"] for each in listed] == [device["id"]]
    facts = body(await session.client.get("/v1/session"), 200)
    assert (facts["actor"], facts["name"], facts["role"]) == ("user:ann", "Ann Example", "operator")
    assert facts["csrf_token"] == session.changes["X-CSRF-Token"]
    assert facts["scopes"] == ["devices:read", "devices:write"]
    key = body(await session.client.get("/v1/key"), 200)
    assert (key["id"], key["project_id"]) == ("user:ann", api.project_id)
    elsewhere = await api.another_key(project="two")
    other = body(await api.as_(elsewhere).post("/v1/devices", json=REGISTER), 201)
    error(await session.client.get(f"/v1/devices/{other['id']}"), 404, "not_found")


@pytest.mark.parametrize(
    ("role", "change", "webhooks"), [("viewer", 403, 403), ("operator", 201, 403), ("admin", 201, 200)]
)
async def test_a_role_opens_what_it_should(api: Api, role: Role, change: int, webhooks: int) -> None:
    """Reading for all, changes for operators, webhooks for admins; a refusal names what is missing."""
    session = await in_session(api, role)
    body(await session.client.get("/v1/devices"), 200)
    changed = await session.client.post("/v1/devices", json=REGISTER, headers=session.changes)
    listed = await session.client.get("/v1/webhooks")
    assert (changed.status_code, listed.status_code) == (change, webhooks)
    if change == 403:
        refused = error(changed, 403, "insufficient_scope")
        assert refused["details"]["required_scope"] == "devices:write"
        assert f"role '{role}'" in refused["message"]


async def test_the_person_is_the_actor(api: Api) -> None:
    """In the event of what was changed, with the address of the browser."""
    session = await in_session(api)
    body(await session.client.post("/v1/devices", json=REGISTER, headers=session.changes), 201)
    events = body(await session.client.get("/v1/events"), 200)["data"]
    assert events[0]["type"] == "device.registered"
    assert events[0]["data"]["actor"] == "user:ann"
    assert events[0]["data"]["client_address"] == "127.0.0.1"
    assert events[1]["type"] == "session.started"


async def test_an_idempotent_change_is_done_once_per_session(api: Api) -> None:
    """The same session gets the same answer; another session of the same person has other keys."""
    one, two = await in_session(api), await in_session(api)
    again = {"Idempotency-Key": "k1"}
    first = await one.client.post("/v1/devices", json=REGISTER, headers={**one.changes, **again})
    second = await one.client.post("/v1/devices", json=REGISTER, headers={**one.changes, **again})
    assert body(first, 201) == body(second, 201)
    assert second.headers["idempotent-replay"] == "true"
    other = await two.client.post("/v1/devices", json=REGISTER, headers={**two.changes, **again})
    assert body(other, 200) == body(first, 201), "it is done again: the serial number is known by then"
    assert "idempotent-replay" not in other.headers


FORGED: tuple[dict[str, str], ...] = (
    {},
    {"X-CSRF-Token": ""},
    {"X-CSRF-Token": "0" * 43},
    {"X-CSRF-Token": "é"},
    {"X-CSRF-Token": "good", "Origin": "https://evil.example"},
    {"X-CSRF-Token": "good", "Origin": "null"},
    {"X-CSRF-Token": "good", "Sec-Fetch-Site": "cross-site"},
    {"X-CSRF-Token": "good", "Sec-Fetch-Site": "same-site"},
    {"X-CSRF-Token": "of another session"},
)


async def test_a_forged_change_is_refused(api: Api) -> None:
    """Without the session's token, or from another site: 403, and no row is changed."""
    session, other = await in_session(api), await in_session(api, sub="bob")
    tokens = {"good": session.changes["X-CSRF-Token"], "of another session": other.changes["X-CSRF-Token"]}
    body(await session.client.get("/v1/devices"), 200)
    await api.settled()
    before = api.dump()
    for headers in FORGED:
        sent = {name.encode(): tokens.get(value, value).encode() for name, value in headers.items()}
        typed = {b"Content-Type": b"application/json", **sent}
        content = b'{"serial_number": "BP-9"}'
        with trying(headers):
            error(await session.client.post("/v1/devices", content=content, headers=typed), 403, "csrf_refused")
            error(await session.client.delete("/v1/session", headers=sent), 403, "csrf_refused")
    await api.settled()
    assert api.dump() == before


async def test_a_change_of_the_page_is_done(api: Api) -> None:
    """With what a browser says of its own page."""
    session = await in_session(api)
    said = {**session.changes, "Origin": api.url, "Sec-Fetch-Site": "same-origin"}
    body(await session.client.post("/v1/devices", json=REGISTER, headers=said), 201)


async def test_with_an_api_key_the_cookie_is_ignored(api: Api) -> None:
    """A good key needs no token, a bad one is refused although the cookie is good."""
    session = await in_session(api, "viewer")
    good, bad = {"Authorization": f"Bearer {api.key}"}, {"Authorization": "Bearer sk_live_00000000"}
    body(await session.client.post("/v1/devices", json=REGISTER, headers=good), 201)
    error(await session.client.get("/v1/devices", headers=bad), 401, "unauthorized")
    error(await session.client.get("/v1/session", headers=good), 403, "insufficient_scope")


async def test_a_signed_out_cookie_opens_nothing(api: Api) -> None:
    """The session ends in the registry, so a copy of the cookie is of no use; the browser is told to delete its own."""
    session = await in_session(api)
    stolen = with_cookie(api, session.secret)
    body(await stolen.get("/v1/devices"), 200)
    answer = await session.client.delete("/v1/session", headers=session.changes)
    assert body(answer, 200) == {"end_session_url": None}
    assert answer.headers["set-cookie"] == "gateway_session=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax"
    error(await stolen.get("/v1/devices"), 401, "unauthorized")
    changed = await stolen.post("/v1/devices", json=REGISTER, headers=session.changes)
    error(changed, 401, "unauthorized")


async def test_a_session_expires(api: Api) -> None:
    """After its hours, whether or not it is in use."""
    session = await in_session(api)
    body(await session.client.get("/v1/devices"), 200)
    api.clock.ahead_ms = HOUR_MS
    error(await session.client.get("/v1/devices"), 401, "unauthorized")


async def test_an_unknown_cookie_is_refused(api: Api) -> None:
    """401, whatever stands in it."""
    for cookie in ("gws_" + "0" * 34, "", "x", "gws_' OR 1=1 --", "g" * 4_000):
        error(await with_cookie(api, cookie).get("/v1/devices"), 401, "unauthorized")


async def test_two_cookies_are_refused(api: Api) -> None:
    """A page of another path may have set one."""
    one, two = await in_session(api), await in_session(api)
    cookies = {"Cookie": f"gateway_session={one.secret}; gateway_session={two.secret}"}
    error(await api.as_(None).get("/v1/devices", headers=cookies), 401, "unauthorized")


async def test_a_stream_ends_with_its_session(api: Api) -> None:
    """Within the time after which streams look at their credential again."""
    session = await in_session(api)
    async with session.client.stream("GET", "/v1/events/stream") as answer:
        assert answer.status_code == 200
        parts = answer.aiter_bytes()
        await anext(parts)
        await api.store.write(lambda tx: sessions.revoke(tx, session.record.id, "cli"))
        async for _ in parts:
            pass
    error(await session.client.get("/v1/events/stream"), 401, "unauthorized")


async def test_a_person_who_may_read_sees_readiness_in_words(api: Api) -> None:
    """As a key does; without a credential a stranger is told less."""
    session = await in_session(api, "viewer")
    proxied = {"X-Forwarded-For": "192.0.2.1"}
    api.readiness["broker"]["error"] = "it is away"
    assert body(await session.client.get("/ready", headers=proxied), 200)["broker"]["error"] == "it is away"
    assert body(await api.as_(None).get("/ready", headers=proxied), 200)["broker"]["error"] != "it is away"


async def test_the_page_learns_how_people_sign_in(api: Api) -> None:
    """By the host of the provider; where nothing is set up, by a null."""
    told = body(await api.as_(None).get("/auth/options"), 200)
    assert told == {"oidc": {"name": "127.0.0.1", "url": "auth/login"}}


async def test_an_invalid_query_is_refused(api: Api) -> None:
    """As everywhere: an unknown parameter is named."""
    session = await in_session(api)
    refused = error(await session.client.get("/v1/session?x=1"), 400, "invalid_request")
    assert refused["details"]["field"] == "x"
