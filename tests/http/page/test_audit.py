"""The audit trail in Chromium: who did it, filtered and linked, names as text, and the list as CSV."""

import csv
import io
import json
from pathlib import Path

from gateway.store import event_sql, key_sql
from tests.http.page.test_accessibility import overflowing, violations
from tests.http.page.test_actions import enter
from tests.http.page.test_resets import goes, saves_to
from tests.http.resources.test_event_list import other, registers
from tests.http.support import Api, body
from tests.support.page import PHONE, PageUser, signed_in
from tests.support.wait import eventually

HOSTILE = "=1+1 <img src=x> \u202egnp.exe"
ITEMS = "document.querySelectorAll('.audit .trail li').length"


async def offered(visitor: PageUser) -> dict[str, str]:
    """The actors that can be chosen: words by id."""
    found: dict[str, str] = json.loads(
        await visitor.tab.run(
            "JSON.stringify(Object.fromEntries([...document.getElementById('eventActor').options]"
            ".map((each) => [each.value, each.textContent])))"
        )
    )
    return found


async def acts(api: Api, actor: str, serial: str) -> None:
    """An event of an actor without a key."""
    device = await api.registered(serial)
    row = (await api.store.read(lambda view: view.all("SELECT pk FROM devices WHERE id = ?", device["id"])))[0]

    class Device:
        pk, id, project_id = row["pk"], device["id"], api.project_id

    await api.store.write(lambda tx: event_sql.record(tx, Device(), "device.updated", actor))


async def test_events_are_filtered_by_who_did_it(api: Api) -> None:
    """By a choice, by a click on a name, by an address that can be kept; with the type as well; and live."""
    key_id, client = await other(api, HOSTILE)
    await registers(client, "BP-1", "BP-2")
    await registers(api.back_end, "BP-3")
    await acts(api, "cli", "BP-4")
    async with signed_in(api.url, api.key) as visitor:
        await goes(visitor, "#/events", "Device registered")
        await visitor.tab.until("document.getElementById('eventActor').options.length === 4")
        choices = await offered(visitor)
        assert list(choices) == ["", "cli", api.key_id, key_id]
        assert choices[api.key_id] == f"back end · key …{api.key_id[-6:]}"
        assert choices[key_id].startswith("=1+1 <img src=x> \\u202egnp.exe")
        assert choices["cli"].startswith("the command line (")
        await enter(visitor, "#eventActor", key_id)
        await visitor.tab.until(f"{ITEMS} === 2")
        assert await visitor.tab.run("location.hash") == f"#/events?actor={key_id}"
        assert "<img src=x> \\u202egnp.exe" in await visitor.text(".audit .trail")
        await registers(client, "BP-5")
        await visitor.tab.until(f"{ITEMS} === 3")
        await enter(visitor, "#eventType", "device.bound")
        await visitor.sees("Nothing like this has happened", ".audit")
        assert await visitor.tab.run("location.hash") == f"#/events?actor={key_id}&type=device.bound"
        await visitor.tab.run(
            "[...document.querySelectorAll('a.button')].find((a) => a.text === 'Clear filters').click()"
        )
        await visitor.tab.until(f"{ITEMS} === 6")
        await visitor.tab.run(f"document.querySelector('.audit .line a[href$=\"{key_id}\"]').click()")
        await visitor.tab.until(f"{ITEMS} === 3")
        assert await visitor.tab.run("document.querySelector('.audit .line [title]').title") == key_id
        await visitor.tab.goto(f"{api.url}/#/events?actor=cli")
        await visitor.live()
        await visitor.tab.until(f"{ITEMS} === 1")
        await visitor.tab.until("document.getElementById('eventActor').value === 'cli'")


async def test_an_address_may_name_anything_as_actor(api: Api) -> None:
    """A device, an unknown one, markup: shown as chosen; what the gateway refuses is said."""
    bound = await api.bound("BP-1")
    body(await api.as_(bound["device_token"]).post("/v1/devices/me/heartbeat"), 200)
    async with signed_in(api.url, api.key) as visitor:
        await goes(visitor, f"#/events?actor={bound['id']}", "Device online")
        await visitor.tab.until(f"{ITEMS} === 1")
        assert "by the device" in await visitor.text(".audit .trail")
        assert (await offered(visitor))[bound["id"]] == bound["id"]
        await goes(visitor, "#/events?actor=<img src=x onerror=alert(1)>", "Nothing like this has happened")
        assert "<img src=x onerror=alert(1)>" in (await offered(visitor)).values()
        await goes(visitor, f"#/events?actor={'x' * 301}", "actor: should have at most 300 characters")


async def test_the_list_is_exported_as_csv(api: Api, tmp_path: Path) -> None:
    """With its filters, all of it, and no cell that a spreadsheet runs."""
    key_id, client = await other(api, HOSTILE)
    await registers(client, *(f"BP-{number:02}" for number in range(60)))
    await registers(api.back_end, "BP-99")
    async with signed_in(api.url, api.key) as visitor:
        await saves_to(visitor, tmp_path)
        await goes(visitor, f"#/events?actor={key_id}", "Show older ones")
        await visitor.press_button("Export as CSV")
        file = tmp_path / "events.csv"
        await eventually(file.exists, "the file")
        assert file.read_bytes().startswith(b"\xef\xbb\xbf")
        found = list(csv.DictReader(io.StringIO(file.read_bytes().decode("utf-8-sig"), newline="")))
        assert len(found) == 60
        assert {each["actor"] for each in found} == {key_id}
        assert {each["actor_name"] for each in found} == {"'=1+1 <img src=x> \\u202egnp.exe"}


async def test_the_view_fits_a_phone_and_passes_the_accessibility_check(api: Api) -> None:
    """With names as long as they may get, in both themes, and with nothing to show."""
    wide = "W" * 128
    async with signed_in(api.url, api.key) as visitor:
        await goes(visitor, "#/events?type=device.deleted", "Nothing like this has happened")
        assert await violations(visitor) == []
        for project_key in ("W" * 120, "Ward 3"):
            _, client = await other(api, project_key)
            await registers(client, f"{project_key[:6]}-1")
        await api.store.write(lambda tx: tx.run("UPDATE api_keys SET name = ? WHERE name = 'Ward 3'", wide))
        await goes(visitor, "#/events", "WWWWWW-1")
        for dark in (False, True):
            for width, height in (PHONE, (1280, 800)):
                await visitor.tab.screen(width, height, dark=dark)
                assert (width, dark, await violations(visitor), await overflowing(visitor)) == (width, dark, [], [])


async def test_a_key_that_is_gone_keeps_its_name_in_the_lists(api: Api) -> None:
    """In the audit trail and in the list of resets, with its id as title."""
    key_id, client = await other(api, "ward app")
    bound = await api.bound("BP-1")
    body(await client.post(f"/v1/devices/{bound['id']}/reset"), 200)
    await api.store.write(lambda tx: key_sql.revoke(tx, key_id))
    await api.store.write(lambda tx: tx.run("DELETE FROM api_keys WHERE id = ?", key_id))
    async with signed_in(api.url, api.key) as visitor:
        await goes(visitor, "#/events", "by ward app")
        await goes(visitor, "#/resets", "ward app")
        assert await visitor.tab.run("document.querySelector('.open td[title]').title") == key_id
