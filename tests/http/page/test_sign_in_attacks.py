"""Attacks on the sign-in in a real browser, at a real provider: what the browser sends, and what the person sees."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.http.page.sign_in import FORM, SAID, a_person, approve, at_the_page, through_the_provider
from tests.http.sign_in.support import CHECK_MS, HOUR_MS, Site
from tests.http.sign_in.test_back_channel import logout_token, send
from tests.http.support import Json, trying
from tests.support.page import PageUser

ENDED = "Your session has ended. Sign in again."
LONGER_THAN_A_SESSION_MS = 48 * HOUR_MS


@asynccontextmanager
async def site_of_an_attacker(host: str, body: str) -> AsyncIterator[str]:
    """A page with this body at another address; that address."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        page = f"<!doctype html><link rel=icon href='data:,'><body>{body}".encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(page)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + page)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://{host}:{server.sockets[0].getsockname()[1]}/"


async def cookies(visitor: PageUser) -> list[dict[str, object]]:
    """The cookies that the browser has, with those that no script of a page can read."""
    found: list[dict[str, object]] = (await visitor.tab.call("Network.getAllCookies"))["cookies"]
    return found


async def types_of_events(place: Site) -> list[str]:
    """The types of all events."""
    return [each["type"] for each in (await place.api.back_end.get("/v1/events")).json()["data"]]


async def sessions_begun(place: Site) -> int:
    """How many sessions have begun."""
    return (await types_of_events(place)).count("session.begun")


async def test_a_stolen_cookie_opens_nothing_after_the_sign_out(place: Site) -> None:
    """It is put back into the browser; the page asks for a sign-in all the same."""
    async with a_person(place) as visitor:
        stolen = await cookies(visitor)
        assert all(each["httpOnly"] and each["sameSite"] in ("Lax", "Strict") for each in stolen), stolen
        await visitor.press_button("Sign out")
        await visitor.at(f"{place.provider.issuer}/oauth2/end_session")
        for each in stolen:
            await visitor.tab.call(
                "Network.setCookie", **{key: each[key] for key in ("name", "value", "domain", "path")}
            )
        assert {each["value"] for each in stolen} <= {each["value"] for each in await cookies(visitor)}
        await visitor.tab.goto(f"{place.api.url}/")
        await visitor.sees("Sign in with 127.0.0.1", FORM)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"], ids=["same site", "another site"])
async def test_a_form_of_another_page_changes_nothing(place: Site, host: str) -> None:
    """It posts a reset with the browser's cookies (CSRF); a browser counts another port as the same site."""
    device = await place.api.registered("BP-1")
    bound = await place.api.back_end.post(f"/v1/devices/{device['id']}/bind", json={"end_user_id": "eu_7"})
    assert bound.status_code == 200, bound.text
    target = f"{place.api.url}/v1/devices/{device['id']}/reset"
    form = f"<form method=post enctype=text/plain action={target}><input name='{{\"a\":\"' value='\"}}'></form>"
    async with site_of_an_attacker(host, form) as evil, a_person(place, "ann", evil) as visitor:
        before = await types_of_events(place)
        await visitor.tab.goto(evil)
        await visitor.tab.run("document.forms[0].submit()")
        await visitor.at(target)
        assert "csrf_refused" in await visitor.text("body") or "unauthorized" in await visitor.text("body")
        script = f"fetch({json.dumps(target)}, {{method: 'POST', mode: 'no-cors', credentials: 'include'}})"
        await visitor.tab.goto(evil)
        assert await visitor.tab.run(f"{script}.then(() => 'read', () => 'kept from it')") == "kept from it"
        assert await types_of_events(place) == before


async def test_a_link_to_the_sign_in_leads_nowhere_else(place: Site) -> None:
    """The browser is on the page in the end."""
    async with at_the_page(place) as visitor:
        for view in ("//evil.example/", "https://evil.example/", "/\\evil.example", "@evil.example"):
            with trying(view):
                await visitor.tab.run(f"location.href = '/auth/login?view=' + encodeURIComponent({json.dumps(view)})")
                await approve(place, visitor, "ann")
                await visitor.live()
                assert await visitor.tab.run("location.origin") == place.api.url


async def test_a_code_is_good_once(place: Site) -> None:
    """The callback's address is opened a second time, as from the history of the browser."""
    async with a_person(place) as visitor:
        callback = next(each for each in visitor.tab.requests if "/auth/callback?" in each)
        begun = await sessions_begun(place)
        await visitor.press_button("Sign out")
        await visitor.at(f"{place.provider.issuer}/oauth2/end_session")
        await visitor.tab.goto(callback)
        await visitor.sees("The sign-in took too long, or began in another browser. Begin again.", SAID)
        assert await sessions_begun(place) == begun


NOT_VALID = "answer is not valid."
WRONG: tuple[tuple[Json, str], ...] = (
    ({"callback": {"iss": "https://evil.example"}}, "The answer came from another provider than the one asked."),
    ({"id_token": {"claims": {"nonce": "another"}}}, NOT_VALID),
    ({"id_token": {"claims": {"nonce": None}}}, NOT_VALID),
    ({"id_token": {"claims": {"aud": "another"}}}, NOT_VALID),
)


async def test_a_wrong_answer_of_the_provider_signs_no_person_in(place: Site) -> None:
    """The page says why, and the browser has no session."""
    async with at_the_page(place) as visitor:
        for behaviour, said in WRONG:
            with trying(behaviour):
                await place.provider.behave(**behaviour)
                await through_the_provider(place, visitor, "ann")
                await visitor.sees(said, SAID)
        assert await sessions_begun(place) == 0


async def test_the_provider_may_change_its_key(place: Site) -> None:
    """Between two sign-ins of one browser; the session of before goes on meanwhile."""
    async with a_person(place) as visitor:
        await place.provider.control("rotate")
        await visitor.tab.goto(f"{place.api.url}/")
        await visitor.live()
        await visitor.press_button("Sign out")
        await visitor.at(f"{place.provider.issuer}/oauth2/end_session")
        place.api.clock.ahead_ms = 11_000  # keys are fetched again ten seconds after the last time
        await visitor.tab.goto(f"{place.api.url}/")
        await visitor.sees("Sign in with 127.0.0.1", FORM)
        await through_the_provider(place, visitor, "ann")
        await visitor.live()


async def test_the_page_asks_again_once_the_session_ends(place: Site) -> None:
    """Its hours are over, the role is taken away, or the provider signs the person out (back channel)."""
    async with a_person(place) as visitor:
        assert (await send(place, await logout_token(place))).status_code == 200
        await visitor.sees(ENDED, SAID)
        await through_the_provider(place, visitor, "ann")
        await visitor.live()
        await place.provider.person("ann", groups=[])
        place.api.clock.ahead_ms += CHECK_MS + 1
        await visitor.sees(ENDED, SAID)
        await place.provider.person("ann", groups=["operators"])
        await through_the_provider(place, visitor, "ann")
        await visitor.live()
        place.api.clock.ahead_ms += LONGER_THAN_A_SESSION_MS
        await visitor.sees(ENDED, SAID)
