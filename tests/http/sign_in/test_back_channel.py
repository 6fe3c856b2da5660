"""The provider's back channel: it ends the sessions that a good logout token names, and nothing else does."""

import time
from typing import Any

import httpx

from tests.http.sign_in.support import Site
from tests.http.support import Json, body, error, trying

EVENTS: Json = {"http://schemas.openid.net/event/backchannel-logout": {}}
NOW = int(time.time())
"""When the tests were collected, minutes before they run: only for times that are wrong by hours."""
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


async def send(place: Site, token: str) -> httpx.Response:
    """Post a logout token, as the provider does."""
    return await place.browser().post("/auth/backchannel", data={"logout_token": token})


async def logout_token(place: Site, **claims: Any) -> str:
    """A good logout token, but for these claims."""
    header = claims.pop("header", {"typ": "logout+jwt"})
    told = {
        "aud": place.client_id,
        "jti": f"id {time.time_ns()}",
        "events": EVENTS,
        "exp": time.time() + 600,
        "sub": "ann",
    }
    return await place.provider.sign({**told, **claims}, **header)


async def test_all_sessions_of_a_person_end(place: Site) -> None:
    """Of that person alone; the cookie opens nothing any more, and the trail says why."""
    one, two = [await place.signed_in("ann", groups=["operators"]) for _ in range(2)]
    bob = await place.signed_in("bob", groups=["viewers"])
    answer = await send(place, await logout_token(place))
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    for browser in (one, two):
        error(await browser.get("/v1/session"), 401, "unauthorized")
    body(await bob.get("/v1/session"), 200)
    events = body(await place.api.back_end.get("/v1/events"), 200)["data"]
    assert [each["data"]["because"] for each in events[:3] if "because" in each["data"]] == [
        "signed_out_at_provider",
        "signed_out_at_provider",
    ]


async def test_a_session_of_the_provider_ends(place: Site) -> None:
    """By ``sid``: the person's other sessions stay."""
    await place.provider.behave(id_token={"claims": {"sid": "s1"}})
    one = await place.signed_in("ann", groups=["operators"])
    await place.provider.behave(id_token={"claims": {"sid": "s2"}})
    two = await place.signed_in("ann", groups=["operators"])
    assert (await send(place, await logout_token(place, sid="s1", sub=None))).status_code == 200
    error(await one.get("/v1/session"), 401, "unauthorized")
    body(await two.get("/v1/session"), 200)


SPOILT: tuple[Json, ...] = (
    {"events": None},
    {"events": {}},
    {"events": {"http://schemas.openid.net/event/backchannel-logout": True}},
    {"nonce": "n"},
    {"jti": None},
    {"jti": ""},
    {"iat": NOW - 7200},
    {"iat": NOW + 7200},
    {"exp": NOW - 120},
    {"aud": "another client"},
    {"iss": "https://evil.example"},
    {"sub": None},
    {"sub": None, "sid": ""},
    {"sub": None, "sid": 1},
    {"header": {"typ": "at+jwt"}},
    {"header": {"alg": "none"}},
    {"header": {"alg": "HS256"}},
    {"header": {"kid": "another"}},
)


async def test_a_logout_token_that_is_not_good_is_refused(place: Site) -> None:
    """400, and the session goes on."""
    browser = await place.signed_in("ann", groups=["operators"])
    for spoilt in SPOILT:
        with trying(spoilt):
            error(await send(place, await logout_token(place, **spoilt)), 400, "invalid_request")
            body(await browser.get("/v1/session"), 200)


async def test_a_logout_token_counts_once(place: Site) -> None:
    """A replay does not end the session of a later sign-in."""
    await place.signed_in("ann", groups=["operators"])
    token = await logout_token(place)
    assert (await send(place, token)).status_code == 200
    later = await place.signed_in("ann", groups=["operators"])
    assert "used before" in error(await send(place, token), 400, "invalid_request")["message"]
    body(await later.get("/v1/session"), 200)


async def test_an_id_token_is_no_logout_token(place: Site) -> None:
    """Nor is anything else that comes."""
    browser = await place.signed_in("ann", groups=["operators"])
    id_token = await logout_token(place, events=None, nonce="n", header={})
    twice = f"logout_token={await logout_token(place)}&logout_token={await logout_token(place)}"
    for content in (
        f"logout_token={id_token}",
        twice,
        "logout_token=x",
        "",
        "logout_token=a&logout_token=b",
        "\xff" * 9,
    ):
        answer = await place.browser().post("/auth/backchannel", content=content.encode(), headers=FORM)
        error(answer, 400, "invalid_request")
    too_large = await place.browser().post("/auth/backchannel", content=b"x" * 70_000, headers=FORM)
    error(too_large, 413, "payload_too_large")
    body(await browser.get("/v1/session"), 200)
