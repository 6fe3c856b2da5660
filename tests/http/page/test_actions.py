"""What can be done on the page beside a reset: bind, rename, notes, settings, commands; and the fleet's audit trail."""

import json

from gateway.models.events import EventType
from tests.http.page.fleet import fill
from tests.http.support import Api, body
from tests.support.mqtt_password import mqtt_password_of
from tests.support.page import PageUser, signed_in


async def enter(visitor: PageUser, field: str, value: str) -> None:
    """Put this into a field, as a person who types and leaves it."""
    await visitor.tab.until(f"document.querySelector({json.dumps(field)})")
    await visitor.tab.run(
        f"(() => {{ const field = document.querySelector({json.dumps(field)}); field.value = {json.dumps(value)};"
        " field.dispatchEvent(new Event('change', {bubbles: true})); })()"
    )


async def closed(visitor: PageUser) -> None:
    """Wait until no dialog is there."""
    await visitor.tab.until("!document.querySelector('dialog')")


async def test_a_bind_shows_the_credentials_once(api: Api) -> None:
    """A wrong end user is refused in words; the token can be copied, survives Escape, and is gone with its dialog."""
    device = await api.registered("BP-1")
    async with signed_in(api.url, api.key) as visitor:
        clipboard = ["clipboardReadWrite", "clipboardSanitizedWrite"]
        await visitor.tab.call("Browser.grantPermissions", permissions=clipboard, browserContextId=visitor.tab.context)
        await visitor.tab.call("Emulation.setFocusEmulationEnabled", enabled=True)
        await visitor.opens(device)
        await visitor.press_button("Bind …")
        await enter(visitor, "#endUser", "wanda")
        await visitor.press_button("Bind the device")
        await visitor.sees("end_user_id: should be 'eu_'", "dialog .error")
        await enter(visitor, "#endUser", "eu_7")
        await visitor.press_button("Bind the device")
        await visitor.sees("shown this once", "dialog")
        shown = await visitor.tab.run("document.querySelector('.secrets code').textContent")
        assert shown.startswith("dtok_")
        for text in ("mqtt.example.com", "8883", device["id"], mqtt_password_of(shown), "Ed25519"):
            await visitor.sees(text, "dialog")
        await visitor.tab.press("Escape")
        await visitor.tab.press("Escape")
        await visitor.press_button("Copy all as JSON")
        await visitor.tab.until(
            "[...document.querySelectorAll('button')].some((each) => each.textContent === 'Copied')"
        )
        copied = json.loads(await visitor.tab.run("navigator.clipboard.readText()"))
        assert copied["device_token"] == shown
        password = copied["mqtt"]["password"]
        assert password == mqtt_password_of(shown)
        body(await api.as_(copied["device_token"]).post("/v1/devices/me/heartbeat"), 200)
        await visitor.press_button("I have it")
        await closed(visitor)
        await visitor.sees("eu_7", "[aria-labelledby=facts_binding]")
        left = await visitor.tab.run(
            "document.documentElement.outerHTML + JSON.stringify([{...sessionStorage}, {...localStorage}])"
        )
        assert [secret for secret in (shown, password) if secret in left] == []
        assert await visitor.has_button("Unbind")


async def test_a_bind_can_supersede_an_open_reset(api: Api) -> None:
    """Only after it is ticked that the device was reset by hand; the open reset is cancelled then."""
    bound = await api.bound("BP-1")
    command = await api.reset(bound["id"])
    async with signed_in(api.url, api.key) as visitor:
        await visitor.opens(bound)
        await visitor.sees("Waiting for the device", ".reset")
        await visitor.press_button("Bind …")
        await visitor.sees("Its reset is still open. It is cancelled", "dialog")
        await enter(visitor, "#endUser", "eu_8")
        assert not await visitor.has_button("Bind the device")
        await visitor.tab.run("document.getElementById('sure').click()")
        await visitor.press_button("Bind the device")
        await visitor.sees("shown this once", "dialog")
        await visitor.press_button("I have it")
        path = f"/v1/devices/{bound['id']}"
        assert body(await api.back_end.get(path), 200)["end_user_id"] == "eu_8"
        assert body(await api.back_end.get(f"{path}/commands/{command['id']}"), 200)["status"] == "cancelled"


async def test_name_notes_and_metadata_can_be_changed(api: Api) -> None:
    """Changed, added and removed; what was not touched keeps its kind; a name that turns words is refused there."""
    metadata = {"room": "3.12", "old": "x", "floor": 3, "tags": ["a"]}
    device = await api.registered("BP-1", name="Bed 1", metadata=metadata)
    async with signed_in(api.url, api.key) as visitor:
        await visitor.opens(device)
        await visitor.press_button("Edit …")
        await enter(visitor, "#name", "Bed\u202e 2")
        await visitor.press_button("Save")
        await visitor.sees("U+202E RIGHT-TO-LEFT OVERRIDE", "dialog .error")
        await enter(visitor, "#name", "Bed 2")
        await enter(visitor, "#notes", "Strap is worn.\nOrdered a new one.")
        await enter(visitor, "[aria-label='Value of room']", "3.14")
        await enter(visitor, "[aria-label='Value of floor']", "4")
        await visitor.tab.run("document.querySelector('[aria-label=\"Remove old\"]').click()")
        await visitor.press_button("Add a line")
        await enter(visitor, ".row:last-child .key", "asset")
        await enter(visitor, ".row:last-child .value", "MED-1")
        await visitor.press_button("Save")
        await closed(visitor)
        await visitor.sees("Bed 2", "h1")
        await visitor.sees("Strap is worn.\nOrdered a new one.", "[aria-labelledby=facts_metadata]")
        changed = body(await api.back_end.get(f"/v1/devices/{device['id']}"), 200)
        assert changed["metadata"] == {
            "room": "3.14",
            "floor": 4,
            "tags": ["a"],
            "notes": "Strap is worn.\nOrdered a new one.",
            "asset": "MED-1",
        }


async def test_every_setting_can_be_set(api: Api) -> None:
    """The form has a field for each setting; only what was changed is sent; bounds are the gateway's."""
    device = await api.registered("BP-1")
    path = f"/v1/devices/{device['id']}"
    async with signed_in(api.url, api.key) as visitor:
        await visitor.opens(device)
        await visitor.press_button("Change …")
        await visitor.sees("Bitrate kbps", "dialog")
        await visitor.press_button("Save")
        await closed(visitor)
        assert body(await api.back_end.get(path), 200)["updated_at"] == device["updated_at"], "nothing was changed"
        await visitor.press_button("Change …")
        await enter(visitor, "#set_audio_codec", "wav")
        await enter(visitor, "#set_audio_sample_rate_khz", "48")
        await enter(visitor, "#set_audio_bitrate_kbps", "64")
        await enter(visitor, "#set_power_auto_sleep_minutes", "0")
        await enter(visitor, "#set_connection_upload_network_preference_0", "cellular")
        await enter(visitor, "#set_connection_upload_network_preference_2", "\N{EN DASH}")
        await visitor.tab.run("document.getElementById('set_upload_off_peak_hours_isSet').click()")
        await enter(visitor, "#set_upload_off_peak_hours_start", "22:00")
        await enter(visitor, "#set_upload_off_peak_hours_end", "06:00")
        await enter(visitor, "#set_connection_power_management_wifi_idle_timeout_seconds", "5")
        await visitor.press_button("Save")
        await visitor.sees("wifi_idle_timeout_seconds", "dialog .error")
        await enter(visitor, "#set_connection_power_management_wifi_idle_timeout_seconds", "0")
        await visitor.press_button("Save")
        await closed(visitor)
        settings = body(await api.back_end.get(path), 200)["settings"]
        assert settings["audio"] == {"codec": "wav", "sample_rate_khz": 48, "bitrate_kbps": 64}
        assert settings["power"] == {**device["settings"]["power"], "auto_sleep_minutes": 0}
        assert settings["connection"]["upload_network_preference"] == ["cellular", "ble"]
        assert settings["connection"]["power_management"]["wifi_idle_timeout_seconds"] == 0
        assert settings["upload"]["off_peak_hours"]["start"] == "22:00"


async def test_a_command_is_sent_and_cancelled(api: Api) -> None:
    """The types of the contract but the reset, with a time after which it expires; a second one is refused in words."""
    bound = await api.bound("BP-1")
    path = f"/v1/devices/{bound['id']}/commands"
    async with signed_in(api.url, api.key) as visitor:
        await visitor.opens(bound)
        await visitor.press_button("Send a command")
        await visitor.tab.until("document.querySelectorAll('dialog [type=radio]').length === 4")
        await visitor.sees("It may not be there now", "dialog")
        await visitor.tab.run("document.getElementById('type_start_recording').click()")
        await enter(visitor, "#ttl", "3600")
        await visitor.press_button("Send the command")
        await closed(visitor)
        await visitor.sees("Start recording", ".trail")
        (command,) = body(await api.back_end.get(path), 200)["data"]
        assert (command["type"], command["status"]) == ("start_recording", "pending")
        await visitor.press_button("Send a command")
        await visitor.tab.run("document.getElementById('type_start_recording').click()")
        await visitor.press_button("Send the command")
        await visitor.sees("start_recording", "dialog .error")
        await visitor.tab.press("Escape")
        await closed(visitor)
        await visitor.press_button("Cancel …")
        await visitor.press_button("Cancel the command")
        await visitor.sees("cancelled", ".trail .chip")


async def test_the_audit_trail_is_shown(api: Api) -> None:
    """Of all devices, by whom, narrowed to a type, live; each leads to its device; every type can be chosen."""
    device = await api.bound("BP-1")
    async with signed_in(api.url, api.key) as visitor:
        await visitor.tab.run("document.getElementById('toEvents').click()")
        await visitor.sees("Device bound", ".audit")
        await visitor.sees("by back end (this key)", ".audit")
        values = await visitor.tab.run("[...document.getElementById('eventType').options].map((each) => each.value)")
        assert values == ["", *EventType]
        await enter(visitor, "#eventType", "device.registered")
        await visitor.tab.until("document.querySelectorAll('.audit .trail li').length === 1")
        other = await api.registered("BP-2")
        await visitor.tab.until("document.querySelectorAll('.audit .trail li').length === 2")
        await visitor.tab.run(f"document.querySelector('.audit a[href$=\"{other['id']}\"]').click()")
        await visitor.sees("BP-2", "h1")
        await visitor.tab.run("history.back()")
        await visitor.tab.until("document.querySelectorAll('.audit .trail li').length === 2")
        assert device["id"] in await visitor.text(".audit")


async def test_the_list_is_sorted_and_paged(api: Api) -> None:
    """By the gateway; a page can be jumped to, filters are counted, and the way back from a device leads there."""
    await api.store.write(lambda tx: fill(tx, api.project_id, 230))
    query: dict[str, str | int] = {
        "limit": 50,
        "sort": "serial_number",
        "order": "asc",
        "status": "bound",
        "total": "true",
    }
    listed = body(await api.back_end.get("/v1/devices", params={**query, "offset": 100}), 200)
    names = [each["name"] or each["serial_number"] for each in listed["data"]]
    async with signed_in(api.url, api.key) as visitor:
        await visitor.sees("1 to 50 of 230 devices", ".range")
        await visitor.sees("of 5", ".jump")
        await enter(visitor, "#filter_sort", "serial_number.asc")
        await enter(visitor, "#filter_status", "bound")
        await visitor.sees(f"1 to 50 of {listed['total']} devices", ".range")
        await enter(visitor, "#page", "3")
        await visitor.lists(*names)
        await visitor.tab.run("scrollTo(0, 600)")
        await visitor.tab.run("document.querySelectorAll('.devices tbody a')[30].click()")
        await visitor.sees(listed["data"][30]["id"], ".device .body")
        await visitor.tab.run("document.querySelector('.back a').click()")
        await visitor.lists(*names)
        assert await visitor.tab.run("scrollY") == 600
        assert await visitor.tab.run("document.getElementById('page').value") == "3"
        assert await visitor.tab.run("document.getElementById('filter_sort').value") == "serial_number.asc"
