"""The list of devices on the page: its order, its filters in the address, and what is selected in it."""

import pytest

from tests.http.page.fleet import fill
from tests.http.support import Api
from tests.support.page import PHONE, PageUser, signed_in

SERIALS = "[...document.querySelectorAll('.devices tbody .serial bdi:first-child')].map((each) => each.textContent)"
TICKED = "document.querySelectorAll('.devices tbody :checked').length"
SORTED = "[...document.querySelectorAll('[aria-sort]')].map((each) => [each.className, each.ariaSort].join(' ')).join()"


async def goes(visitor: PageUser, address: str) -> None:
    """Open an address of the page."""
    await visitor.tab.run(f"location.hash = '{address}'")


async def test_a_column_head_sorts_the_list(api: Api) -> None:
    """By keyboard, up and then down; ``aria-sort`` and the choice say so; the address keeps it, with the filters."""
    for serial, name in {"BP-1": "Cedar", "BP-2": "Ash", "BP-3": "Birch"}.items():
        await api.registered(serial, name=name)
    async with signed_in(api.url, api.key) as visitor:
        await visitor.lists("Birch", "Ash", "Cedar")
        assert await visitor.tab.run(SORTED) == "registered descending"
        await goes(visitor, "#/?status=unbound")
        await visitor.tab.tab_to(".name button.sort")
        await visitor.tab.press("Enter")
        await visitor.lists("Ash", "Birch", "Cedar")
        assert await visitor.tab.run(SORTED) == "name ascending"
        await visitor.tab.press("Enter")
        await visitor.lists("Cedar", "Birch", "Ash")
        assert await visitor.tab.run(SORTED) == "name descending"
        assert await visitor.tab.run("location.hash") == "#/?order=desc&sort=name&status=unbound"
        assert await visitor.tab.run("document.getElementById('filter_sort').value") == "name.desc"
        await visitor.tab.run("document.querySelector('.serial button.sort').click()")
        await visitor.lists("Cedar", "Ash", "Birch")
        await visitor.tab.run("history.back()")
        await visitor.lists("Cedar", "Birch", "Ash")


DEEP_LINKS = {
    "status=bound": ["BP-3"],
    "connection=offline&seen=true": [],
    "seen=false&sort=serial_number": ["BP-1", "BP-2", "BP-3"],
    "condition=reset_pending": [],
    "model=bota_note": ["BP-2"],
    "end_user_id=eu_7": ["BP-3"],
    "search=bp-1": ["BP-1"],
    "sort=serial_number&order=desc": ["BP-3", "BP-2", "BP-1"],
    "sort=updated_at&order=asc&status=unbound": ["BP-1", "BP-2"],
}


async def test_every_filter_can_be_linked(api: Api) -> None:
    """The address alone gives the list and fills in the form; a reload and a look at a device keep it."""
    await api.registered("BP-1")
    await api.registered("BP-2", model="bota_note")
    await api.bound("BP-3", end_user_id="eu_7")
    async with signed_in(api.url, api.key) as visitor:
        for address, found in DEEP_LINKS.items():
            await goes(visitor, f"#/?{address}")
            await visitor.lists(*found)
        await goes(visitor, "#/?end_user_id=eu_7&model=bota_pin")
        await visitor.lists("BP-3")
        await visitor.tab.goto("about:blank")
        await visitor.tab.goto(f"{api.url}/#/?end_user_id=eu_7&model=bota_pin")
        await visitor.lists("BP-3")
        shown = "['end_user_id', 'model'].map((each) => document.getElementById('filter_' + each).value).join()"
        assert await visitor.tab.run(shown) == "eu_7,bota_pin"
        await visitor.tab.click(".devices tbody a")
        await visitor.sees("BP-3", ".device .body")
        await visitor.tab.run("document.querySelector('.back a').click()")
        await visitor.lists("BP-3")
        await goes(visitor, "#/?model=nothing_of_this")
        await visitor.sees("No device fits these filters", ".empty")


async def test_a_selection_survives_paging_and_refreshes(api: Api) -> None:
    """Some of two pages, then all that match; a device that is registered meanwhile takes no tick from another."""
    await api.store.write(lambda tx: fill(tx, api.project_id, 60))
    async with signed_in(api.url, api.key) as visitor:
        await visitor.sees("1 to 50 of 60 devices", ".range")
        await visitor.tab.tab_to("#selectPage")
        await visitor.tab.press(" ")
        await visitor.sees("50 devices selected", ".selection")
        await visitor.tab.tab_to(".devices tbody .tickbox input")
        first = await visitor.tab.run("document.activeElement.getAttribute('aria-label')")
        assert first == f"Select {(await visitor.devices())[0]}"
        await visitor.tab.press(" ")
        await visitor.sees("49 devices selected", ".selection")
        assert await visitor.tab.run("document.getElementById('selectPage').indeterminate")
        await visitor.tab.run("document.querySelector('.pages [rel=next]').click()")
        await visitor.sees("51 to 60 of 60 devices", ".range")
        assert await visitor.tab.run(TICKED) == 0
        await visitor.tab.run("document.querySelector('.devices tbody .tickbox input').click()")
        await visitor.sees("50 devices selected", ".selection")
        await api.registered("BP-new")
        await visitor.sees("51 to 61 of 61 devices", ".range")
        assert await visitor.tab.run(TICKED) == 2, "the last of the first page has come here with its tick"
        await visitor.tab.run("document.querySelector('.pages [rel=prev]').click()")
        await visitor.sees("1 to 50 of 61 devices", ".range")
        assert await visitor.tab.run(TICKED) == 48, "not the new one, and not the one that was taken out"
        await visitor.press_button("Clear")
        await visitor.tab.until("document.querySelector('.selection').innerText.trim() === ''")
        assert await visitor.tab.run(TICKED) == 0


async def test_all_that_match_can_be_selected(api: Api) -> None:
    """Beyond the page; counted live; another filter ends it, and a tick that is taken away leaves the page's."""
    await api.store.write(lambda tx: fill(tx, api.project_id, 60))
    async with signed_in(api.url, api.key) as visitor:
        await goes(visitor, "#/?seen=true&sort=serial_number")
        await visitor.tab.until("document.querySelector('.range').innerText.includes('1 to 50 of 5')")
        await visitor.tab.run("document.getElementById('selectPage').click()")
        await visitor.press_button("Select all 5")
        await visitor.tab.until(
            "/^All 5\\d devices that match the filters selected$/.test("
            "document.querySelector('.selection p').innerText)"
        )
        await visitor.tab.run("document.querySelector('.pages [rel=next]').click()")
        await visitor.sees("51 to ", ".range")
        shown = len(await visitor.devices())
        assert await visitor.tab.run(TICKED) == shown
        await visitor.tab.run("document.querySelector('.devices tbody .tickbox input').click()")
        await visitor.sees(f"{shown - 1} devices selected", ".selection")
        await visitor.tab.run("document.getElementById('selectPage').click()")
        await goes(visitor, "#/")
        await visitor.sees("1 to 50 of 60 devices", ".range")
        await visitor.press_button("Clear")
        await visitor.tab.run("document.getElementById('selectPage').click()")
        await visitor.press_button("Select all 60")
        await visitor.sees("All 60 devices of the fleet selected", ".selection")
        await api.registered("BP-new")
        await visitor.sees("All 61 devices of the fleet selected", ".selection")
        await goes(visitor, "#/?status=bound")
        await visitor.tab.until("document.querySelector('.selection').innerText.trim() === ''")


@pytest.mark.parametrize("may_write", [True, False])
async def test_a_thumb_selects_on_a_phone(api: Api, *, may_write: bool) -> None:
    """The box of a row is large enough for it, and opens no device; a read-only key has none."""
    await api.registered("BP-1")
    key = api.key if may_write else await api.another_key("devices:read")
    async with signed_in(api.url, key) as visitor:
        await visitor.tab.screen(*PHONE)
        await visitor.lists("BP-1")
        assert await visitor.tab.run("document.querySelectorAll('[type=checkbox]').length") == (2 if may_write else 0)
        if may_write:
            box = "document.querySelector('td.tickbox label').getBoundingClientRect()"
            assert await visitor.tab.run(f"Math.min({box}.width, {box}.height)") >= 44
            await visitor.tab.click("td.tickbox label")
            await visitor.sees("1 device selected", ".selection")
        assert await visitor.tab.run("location.hash") in ("", "#/")
