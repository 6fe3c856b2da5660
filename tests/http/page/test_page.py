"""The page at ``/`` in Chromium: signing in and out, the fleet, one device, and what can be done to it."""

from pathlib import Path

import pytest

from gateway.domain import devices
from gateway.http.stream_limit import StreamLimiter, StreamLimits
from gateway.store import health_sql, key_sql
from tests.http.page.fleet import fill
from tests.http.page.support import send_heartbeat
from tests.http.support import Api, body, serving
from tests.support.chromium import Page
from tests.support.page import PageUser, open_page, signed_in
from tests.support.wait import eventually


async def kept(tab: Page) -> str:
    """All that the browser keeps or shows of where it is: storages, cookies, address, history."""
    text: str = await tab.run(
        "JSON.stringify([{...sessionStorage}, {...localStorage}, document.cookie, location.href, history.state])"
    )
    return text


# --- signing in -------------------------------------------------------------------------------------------------------


async def test_a_key_is_stored_in_the_tab_alone(api: Api) -> None:
    """Wrong ones are refused in words; a good one survives a reload, is in no address, and is forgotten when asked."""
    webhooks = await api.another_key("webhooks:read")
    async with open_page(api.url) as visitor:
        await visitor.tab.goto(f"{api.url}/")
        await visitor.tab.until("document.getElementById('key') != null")
        for key, words in {
            "not a key": "begins with sk_ or rk_",
            "sk_live_nobody": "not good: unknown, expired or revoked",
            webhooks: "lacks the scope devices:read",
        }.items():
            await visitor.tab.run("document.getElementById('key').value = ''")
            await visitor.tab.type(key)
            await visitor.tab.press("Enter")
            await visitor.sees(words, "#refused")
        assert api.key not in await kept(visitor.tab)

        await visitor.sign_in(api.key)
        assert await visitor.tab.run("sessionStorage.getItem('apiKey')") == api.key
        assert await visitor.tab.run("localStorage.length") == 0
        assert [each for each in visitor.tab.requests if api.key in each] == []
        await visitor.tab.goto(f"{api.url}/")
        await visitor.live()
        await visitor.press_button("Sign out")
        await visitor.sees("Sign in", "h1")
        assert api.key not in await kept(visitor.tab)


async def test_a_link_opens_in_a_new_tab(api: Api) -> None:
    """By Ctrl-click: the tab that is signed in hands its key over; signed out in one, both are."""
    device = await api.registered("BP-1")
    async with signed_in(api.url, api.key) as visitor:
        await visitor.lists("BP-1")
        await visitor.tab.click(".devices tbody a", control=True)
        async with visitor.tab.opened() as other:
            second = PageUser(api.url, other)
            await second.sees(device["id"], ".device .body")
            assert await second.tab.run("localStorage.length") == 0
            await second.press_button("Sign out")
            await second.sees("Sign in", "h1")
            await visitor.sees("Signed out in another tab", "#refused")
            assert api.key not in await kept(visitor.tab) + await kept(other)
            await other.goto(f"{api.url}/")
            await second.sees("Sign in", "h1")


async def test_the_api_page_gets_the_key_too(api: Api) -> None:
    """In a new tab, from the tab that is signed in; it is forgotten there when that one signs out."""
    async with signed_in(api.url, api.key) as visitor:
        await visitor.tab.click("header .tools a[href=docs]", control=True)
        async with visitor.tab.opened() as other:
            state = "(() => { const input = document.getElementById('apiKey');"
            state += " return input && [input.value, sessionStorage.getItem('apiKey')]; })()"

            async def has(*wanted: str | None) -> bool:
                return bool(await other.run(state) == list(wanted))

            await eventually(lambda: has(api.key, api.key), "the new tab has the key")
            await visitor.press_button("Sign out")
            await visitor.sees("Sign in", "h1")
            await eventually(lambda: has("", None), "the new tab has forgotten the key")


async def test_a_key_that_is_revoked_leads_back_to_the_sign_in(api: Api) -> None:
    """At the next look; it says why, and nothing of the fleet is left to be seen."""
    await api.registered("BP-1")
    key = await api.another_key()
    async with signed_in(api.url, key) as visitor:
        await visitor.lists("BP-1")
        revoked = body(await api.as_(key).get("/v1/key"), 200)["id"]
        await api.store.write(lambda tx: key_sql.revoke(tx, revoked))
        await api.registered("BP-2")
        await visitor.sees("revoked or has expired", "#refused")
        assert "BP-1" not in await visitor.text("body")
        assert key not in await kept(visitor.tab)


@pytest.mark.parametrize("may_write", [True, False])
async def test_a_read_only_key_sees_no_actions(api: Api, *, may_write: bool) -> None:
    """No reset, no unbind, no cancel; and the page says that it is read only."""
    bound = await api.bound()
    body(await api.back_end.post(f"/v1/devices/{bound['id']}/commands", json={"type": "reboot"}), 201)
    key = api.key if may_write else await api.another_key("devices:read")
    async with signed_in(api.url, key) as visitor:
        await visitor.opens(bound)
        await visitor.sees("Reboot", ".trail")
        offered = [await visitor.has_button(each) for each in ("Reset", "Unbind", "Cancel")]
        assert offered == [may_write] * 3
        assert ("read only" in await visitor.text("#project")) is not may_write


# --- the fleet --------------------------------------------------------------------------------------------------------


async def test_an_empty_page_says_how_to_add_a_device(api: Api) -> None:
    """The command to run; then the device, by the event stream, without being asked."""
    async with signed_in(api.url, api.key) as visitor:
        await visitor.sees("gateway devices register", ".empty")
        await api.registered("BP-1", name="Ward 3, bed 2")
        await visitor.lists("Ward 3, bed 2")
        assert await visitor.text(".range") == "1 device"


async def test_figures_link_to_the_devices_that_they_count(api: Api) -> None:
    """Each of the seven; the address says which, so that it can be kept, and the way back leads back."""
    bound = {serial: await api.bound(serial) for serial in ("low", "full", "well", "reset", "away")}
    await api.registered("silent")
    for serial, health_fields in {
        "low": {"battery_percent": 4},
        "full": {"flags": 4},
        "well": {"battery_percent": 80},
        "away": {},
    }.items():
        await send_heartbeat(api, bound[serial], **health_fields)
    await api.reset(bound["reset"]["id"])
    await api.store.write(
        lambda tx: health_sql.set_offline(tx, devices.require(tx, api.project_id, bound["away"]["id"]).pk)
    )
    everything = ("silent", "away", "reset", "well", "full", "low")
    figures = {
        "Devices": everything,
        "Online": ("well", "full", "low"),
        "Offline": ("away",),
        "Never seen": ("silent", "reset"),
        "Low battery": ("low",),
        "Storage full": ("full",),
        "Pending resets": ("reset",),
    }
    async with signed_in(api.url, api.key) as visitor:
        await visitor.lists(*everything)
        for label, found in figures.items():
            tile = f"[...document.querySelectorAll('.tile')].find((each) => each.innerText.startsWith('{label}'))"
            await visitor.tab.run(f"{tile}.click()")
            await visitor.lists(*found)
            shown = await visitor.text(".tile[aria-current]")
            assert shown.split("\n")[:2] == [label, str(len(found))]
        await visitor.tab.run("history.back()")
        await visitor.lists("full")


async def test_search_and_filters_narrow_the_list(api: Api) -> None:
    """What is typed is found wherever it stands, with what is chosen; nothing found is said, with a way out."""
    await api.bound("BP-1", end_user_id="eu_wanda")
    await api.registered("BP-2", name="Wanda's spare")
    await api.registered("BP-3")
    async with signed_in(api.url, api.key) as visitor:
        await visitor.tab.tab_to("#search")
        await visitor.tab.type("wanda")
        await visitor.lists("Wanda's spare", "BP-1")
        await visitor.tab.run(
            "(({value}) => { const s = document.getElementById('filter_status'); s.value = value;"
            " s.dispatchEvent(new Event('change')); })({value: 'bound'})"
        )
        await visitor.lists("BP-1")
        assert await visitor.tab.run("location.hash") == "#/?search=wanda&status=bound"
        await visitor.tab.type("%")
        await visitor.sees("No device fits these filters", ".empty")
        await visitor.tab.run("document.querySelector('.empty a').click()")
        await visitor.lists("BP-3", "Wanda's spare", "BP-1")
        assert await visitor.tab.run("document.getElementById('search').value") == ""


async def test_a_long_list_is_paged_by_the_server(api: Api) -> None:
    """Fifty at a time, newest first, with how many there are; never more than a page is asked for."""
    await api.store.write(lambda tx: fill(tx, api.project_id, 120))
    second = body(await api.back_end.get("/v1/devices", params={"limit": 50, "offset": 50}), 200)["data"]
    async with signed_in(api.url, api.key) as visitor:
        await visitor.sees("1 to 50 of 120 devices", ".range")
        await visitor.tab.run("document.querySelector('.pages [rel=next]').click()")
        await visitor.sees("51 to 100 of 120 devices", ".range")
        assert await visitor.devices() == [each["name"] or each["serial_number"] for each in second]
        await visitor.tab.run("document.querySelector('.pages [rel=next]').click()")
        await visitor.sees("101 to 120 of 120 devices", ".range")
        assert len(await visitor.devices()) == 20
        assert not await visitor.tab.run("document.querySelector('.pages [rel=next]').checkVisibility()")
        asked = [each for each in visitor.tab.requests if "/v1/devices?" in each]
        assert all("limit=50" in each for each in asked)


async def test_retry_after_is_respected(tmp_path: Path) -> None:
    """429: the page says so and how long, and asks for nothing in the meantime."""
    async with serving(tmp_path / "data", rate_limit_per_minute=6) as api:
        api.clock.ahead_ms = 0
        async with signed_in(api.url, api.key) as visitor:
            for number in range(8):
                await visitor.tab.run(f"location.hash = '#/?search=x{number}'")
                await visitor.tab.until("true")
            await visitor.sees("goes on by itself in", "#slow")
            asked = len(visitor.tab.requests)
            await visitor.tab.run("location.hash = '#/?search=again'")
            await visitor.tab.until("document.querySelector('.fleet.loading')")
            assert len(visitor.tab.requests) == asked


async def test_without_a_stream_the_page_says_why_and_polls(tmp_path: Path) -> None:
    """A key that has as many streams open as it may: the gateway's own words, and the list all the same."""
    limits = StreamLimits(per_key=0)
    async with (
        serving(tmp_path / "data", streams=StreamLimiter(limits)) as api,
        open_page(api.url) as visitor,
    ):
        await api.registered("BP-1")
        await visitor.tab.goto(f"{api.url}/")
        await visitor.tab.until("document.activeElement.id === 'key'")
        await visitor.tab.type(api.key)
        await visitor.tab.press("Enter")
        await visitor.sees("event streams open", "#lost")
        await visitor.lists("BP-1")
