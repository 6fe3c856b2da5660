"""Sign-in with OpenID Connect in a real browser, at a real provider: by role, and out again."""

import pytest

from gateway.domain import sessions
from tests.http.page.sign_in import at_the_page, through_the_provider
from tests.http.page.test_accessibility import overflowing, violations
from tests.http.sign_in.support import Site
from tests.support.page import PHONE


async def test_an_operator_signs_in_and_acts(place: Site) -> None:
    """Back at the view that was asked for; the list, an action, the person as its actor; no key is stored."""
    device = await place.api.registered("BP-1")
    async with at_the_page(place, f"#/devices/{device['id']}") as visitor:
        assert await visitor.tab.run("document.activeElement.id") == "provider"
        await through_the_provider(place, visitor, "ann")
        await visitor.live()
        await visitor.sees(device["id"], ".device .body")
        assert await visitor.text("#project") == "one · Ann Example"
        assert await visitor.tab.run("sessionStorage.length + localStorage.length") == 0
        assert await visitor.tab.run("document.cookie") == ""
        await visitor.press_button("Bind")
        await visitor.tab.until("document.querySelector('dialog input') != null")
        await visitor.tab.run("document.querySelector('dialog input').value = 'eu_7'")
        await visitor.press_button("Bind the device")
        await visitor.sees("dtok_", "dialog")
        events = (await place.api.back_end.get("/v1/events")).json()["data"]
        bound = next(each for each in events if each["type"] == "device.bound")
        assert bound["data"]["actor"] == "user:ann"


async def test_a_viewer_sees_the_list_and_no_actions(place: Site) -> None:
    """Read only, as with such a key; a reload and a new tab need no sign-in."""
    device = await place.api.registered("BP-1")
    async with at_the_page(place) as visitor:
        await through_the_provider(place, visitor, "vic")
        await visitor.lists("BP-1")
        assert await visitor.text("#project") == "one · Vic Example · read only"
        await visitor.opens(device)
        assert not await visitor.has_button("Bind")
        await visitor.tab.goto(f"{place.api.url}/docs")
        await visitor.tab.goto(f"{place.api.url}/")
        await visitor.lists("BP-1")


async def test_a_person_without_a_role_is_told_so(place: Site) -> None:
    """In words, on the sign-in form; the code leaves the address."""
    async with at_the_page(place) as visitor:
        await through_the_provider(place, visitor, "eve")
        await visitor.sees("Your account has no role here.", ".signin .error")
        assert await visitor.tab.run("location.hash") == "#/"


async def test_an_api_key_signs_in_as_before(place: Site) -> None:
    """On the same form."""
    await place.api.registered("BP-1")
    async with at_the_page(place) as visitor:
        await visitor.tab.run("document.getElementById('key').focus()")
        await visitor.tab.type(place.api.key)
        await visitor.tab.press("Enter")
        await visitor.lists("BP-1")
        assert await visitor.text("#project") == "one"


async def test_sign_out_ends_the_session_here_and_leads_to_the_provider(place: Site) -> None:
    """The cookie opens nothing any more, and the page asks again."""
    async with at_the_page(place) as visitor:
        await through_the_provider(place, visitor, "ann")
        await visitor.live()
        await visitor.press_button("Sign out")
        await visitor.at(f"{place.provider.issuer}/oauth2/end_session")
        rows = await place.api.store.read(lambda view: view.all("SELECT ended_because FROM sessions"))
        assert [row["ended_because"] for row in rows] == ["signed_out"]
        await visitor.tab.goto(f"{place.api.url}/")
        await visitor.sees("Sign in with 127.0.0.1", ".signin")


async def test_a_revoked_session_leads_back_to_the_sign_in(place: Site) -> None:
    """At once: its stream ends."""
    async with at_the_page(place) as visitor:
        await through_the_provider(place, visitor, "ann")
        await visitor.live()
        await place.api.store.write(lambda tx: sessions.revoke(tx, "user:ann", "cli"))
        await visitor.sees("Your session has ended. Sign in again.", ".signin .error")


@pytest.mark.parametrize("dark", [False, True])
async def test_the_sign_in_is_accessible(place: Site, *, dark: bool) -> None:
    """By axe, on a desktop and on a phone; nothing is wider than the screen."""
    async with at_the_page(place) as visitor:
        for width, height in ((1280, 800), PHONE):
            await visitor.tab.screen(width, height, dark=dark)
            assert await violations(visitor) == []
            assert await overflowing(visitor) == []
