"""The provider is asked again: a role that is taken away ends the session, and so does a provider that refuses."""

from pathlib import Path

import httpx
import pytest

from gateway.settings.role_rules import RoleRule
from tests.http.sign_in.support import CHECK_MS, Site, site
from tests.http.support import Json, body, error


async def check(place: Site, browser: httpx.AsyncClient) -> httpx.Response:
    """Let the time of a check come, and make a request."""
    place.api.clock.ahead_ms += CHECK_MS + 1
    return await browser.get("/v1/session")


async def ended_because(place: Site) -> str:
    """Why the last session ended, as the audit trail has it."""
    newest = body(await place.api.back_end.get("/v1/events"), 200)["data"][0]
    assert newest["type"] == "session.ended"
    because: str = newest["data"]["because"]
    return because


async def test_a_role_that_is_taken_away_ends_the_session(place: Site) -> None:
    """At the next check, and not before it; giving it back needs a new sign-in."""
    browser = await place.signed_in("ann", groups=["operators"])
    await place.provider.person("ann", groups=[])
    body(await browser.get("/v1/session"), 200)
    error(await check(place, browser), 401, "unauthorized")
    assert await ended_because(place) == "role_gone"
    await place.provider.person("ann", groups=["operators"])
    error(await check(place, browser), 401, "unauthorized")


async def test_a_lower_role_holds_from_the_next_check(place: Site) -> None:
    """For this request already; a higher one as well."""
    browser = await place.signed_in("ann", groups=["operators"])
    for group, role in (("viewers", "viewer"), ("admins", "admin")):
        await place.provider.person("ann", groups=[group])
        told = body(await check(place, browser), 200)
        assert told["role"] == role


async def test_a_role_in_another_project_ends_the_session(tmp_path: Path, issuer: str) -> None:
    """It was for the project of before."""
    rules = (RoleRule("a", "one", "viewer"), RoleRule("b", "two", "viewer"))
    async with site(tmp_path, issuer, rules=rules) as place:
        await place.api.another_key(project="two")
        browser = await place.signed_in("ann", groups=["a"])
        await place.provider.person("ann", groups=["b"])
        error(await check(place, browser), 401, "unauthorized")


async def test_a_closed_account_ends_the_session(place: Site) -> None:
    """The provider does not take the refresh token any more."""
    browser = await place.signed_in("ann", groups=["operators"])
    await place.provider.revoke("ann")
    error(await check(place, browser), 401, "unauthorized")
    assert await ended_because(place) == "provider_refused"


async def test_the_role_is_checked_once_per_interval(place: Site) -> None:
    """Of several requests one asks the provider, with the newest refresh token each time."""
    browser = await place.signed_in("ann", groups=["operators"])
    before = len((await place.provider.control("used"))["grants"])
    for _ in range(3):
        body(await check(place, browser), 200)
        for _ in range(3):
            body(await browser.get("/v1/session"), 200)
    grants = (await place.provider.control("used"))["grants"][before:]
    assert grants == ["refresh_token"] * 3


async def test_a_provider_that_is_away_ends_no_session_at_once(place: Site) -> None:
    """For four intervals after the last confirmation; then 401 until it answers again."""
    browser = await place.signed_in("ann", groups=["operators"])
    await place.provider.behave(status={"/oauth2/token": 503})
    for _ in range(3):
        body(await check(place, browser), 200)
    error(await check(place, browser), 401, "unauthorized")
    await place.provider.behave()
    assert body(await check(place, browser), 200)["role"] == "operator"


async def test_a_stream_ends_with_the_role(place: Site) -> None:
    """It is looked at again every half second, with the provider asked when that is due."""
    browser = await place.signed_in("ann", groups=["viewers"])
    async with browser.stream("GET", "/v1/events/stream") as answer:
        parts = answer.aiter_bytes()
        await anext(parts)
        await place.provider.person("ann", groups=[])
        place.api.clock.ahead_ms += CHECK_MS + 1
        async for _ in parts:
            pass
    error(await browser.get("/v1/session"), 401, "unauthorized")


async def test_without_a_refresh_token_the_access_token_is_used(place: Site) -> None:
    """Until the provider does not take it any more."""
    await place.provider.behave(token={"refresh_token": None})
    browser = await place.signed_in("ann", groups=["operators"])
    await place.provider.person("ann", groups=["viewers"])
    assert body(await check(place, browser), 200)["role"] == "viewer"
    await place.provider.revoke("ann")
    error(await check(place, browser), 401, "unauthorized")
    assert await ended_because(place) == "provider_refused"


@pytest.mark.parametrize(
    ("claims", "view"),
    [
        ({"email": "ann@example.com", "email_verified": True}, "/"),
        ({"email": "ann@example.com", "email_verified": False}, "/sign-in/no_role"),
        ({"email": "ann@example.com"}, "/sign-in/no_role"),
        ({"email": "ann@example.com", "email_verified": "true"}, "/sign-in/no_role"),
    ],
    ids=str,
)
async def test_an_address_counts_when_it_is_verified(tmp_path: Path, issuer: str, claims: Json, view: str) -> None:
    """Otherwise people could choose their role."""
    rules = (RoleRule("ann@example.com", "one", "viewer"),)
    async with site(tmp_path, issuer, rules=rules, role_claim="email") as place:
        await place.provider.person("ann", **claims)
        assert await place.sign_in(place.browser(), "ann") == view
