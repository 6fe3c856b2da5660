"""The page of one device: its fields, its reset, and its errors."""

import json
import re

from tests.http.page.fleet import add_history
from tests.http.page.support import send_heartbeat
from tests.http.support import Api, body
from tests.support.page import signed_in
from tests.support.receipts import receipt_of

SCRIPT = "<img src=x onerror='window.hit=1'><script>window.hit=1</script>"


# --- a device ---------------------------------------------------------------------------------------------------------


async def test_a_device_page_shows_all_fields(api: Api) -> None:
    """Health, curves, binding, settings, metadata, commands, events; and what comes is there without being asked."""
    bound = await api.bound("BP-1", end_user_id="eu_7")
    change = {"name": "Ward 3", "metadata": {"room": "3.12"}, "settings": {"audio": {"bitrate_kbps": 64}}}
    body(await api.back_end.patch(f"/v1/devices/{bound['id']}", json=change), 200)
    await api.store.write(lambda tx: add_history(tx, bound["id"], days=1))
    health_fields = {
        "battery_percent": 40,
        "storage_used_mb": 512,
        "storage_total_mb": 4096,
        "connection_type": ["wifi"],
    }
    await send_heartbeat(api, bound, **health_fields, signal_strength_dbm=-61)
    async with signed_in(api.url, api.key) as visitor:
        await visitor.opens(bound)
        assert await visitor.text("h1") == "Ward 3"
        assert await visitor.tab.run("document.title") == "Ward 3 · Device gateway"
        for text in (
            "40 %",
            "13 % of 4 GB",
            "\N{MINUS SIGN}61 dBm",
            "WiFi",
            "eu_7",
            "3.12",
            "Bitrate kbps",
            "Device bound",
        ):
            await visitor.sees(text, ".body")
        await visitor.tab.until("document.querySelectorAll('.chart .line').length === 3")
        for curve in await visitor.tab.run(
            "[...document.querySelectorAll('.chart .line')].map((each) => each.getAttribute('d'))"
        ):
            assert 200 < curve.count("L") < 300
            assert curve.count("M") == 2, "broken where the device was away for hours"
        summary = await visitor.tab.run("document.querySelector('.chart svg').getAttribute('aria-label')")
        assert re.search(r"^Battery from .*: lowest \d+ %, highest 9\d %, at the end 40 %\.$", summary)
        body(await api.back_end.post(f"/v1/devices/{bound['id']}/commands", json={"type": "reboot"}), 201)
        await visitor.sees("Reboot", ".trail")
        await visitor.sees("Command created: reboot", ".trail:not(:has(.chip))")


async def test_a_reset_is_made_and_cancelled_by_keyboard(api: Api) -> None:
    """The dialog says what will happen, Escape leaves all as it is, and without the tick nothing can be done."""
    bound = await api.bound("BP-1", end_user_id="eu_7")
    async with signed_in(api.url, api.key) as visitor:
        tab = visitor.tab
        await visitor.lists("BP-1")
        await tab.tab_to(".devices a")
        await tab.press("Enter")
        await visitor.sees(bound["id"], ".body")
        await tab.tab_to(".actions .bad")
        await tab.press("Enter")
        await visitor.sees("It is unbound from eu_7 at once", "dialog")
        await tab.press("Escape")
        await tab.until("!document.querySelector('dialog')")
        assert body(await api.back_end.get(f"/v1/devices/{bound['id']}"), 200)["status"] == "bound"

        await tab.press("Enter")
        await tab.until("document.activeElement.id === 'recordings_keep'")
        assert await tab.run("document.querySelector('dialog .bad').disabled")
        await tab.tab_to("#sure")
        await tab.press(" ")
        await tab.tab_to("dialog .bad")
        await tab.press("Enter")
        await visitor.sees("Waiting for the device", ".reset")
        assert not await visitor.has_button("Reset")

        await tab.tab_to(".reset button")
        await tab.press("Enter")
        await tab.tab_to("dialog .bad")
        await tab.press("Enter")
        await visitor.sees("It was cancelled", ".reset")
        (command,) = body(await api.back_end.get(f"/v1/devices/{bound['id']}/commands"), 200)["data"]
        assert (command["type"], command["status"]) == ("factory_reset", "cancelled")


async def test_errors_are_shown_at_the_control_that_caused_them(api: Api) -> None:
    """A reset that the device has got in the meantime cannot be cancelled: its words stand in the dialog."""
    bound = await api.bound("BP-1")
    command = await api.reset(bound["id"])
    async with signed_in(api.url, api.key) as visitor:
        await visitor.opens(bound)
        await visitor.press_button("Cancel the reset")
        device = api.as_(bound["device_token"])
        ack = {"status": "delivered", "receipt": receipt_of(bound["device_token"], command, "delivered")}
        body(await device.post(f"/v1/devices/me/commands/{command['id']}/ack", json=ack), 200)
        await visitor.press_button("Cancel the command")
        await visitor.sees("cannot be cancelled", "dialog .error")
        await visitor.press_button("Leave it as it is")
        await visitor.sees("is wiping itself", ".reset")
        assert not await visitor.has_button("Cancel")


async def test_a_device_is_unbound(api: Api) -> None:
    """It is said that nothing is wiped; then the device is unbound, and the button is gone."""
    bound = await api.bound("BP-1", end_user_id="eu_7")
    async with signed_in(api.url, api.key) as visitor:
        await visitor.opens(bound)
        await visitor.press_button("Unbind")
        await visitor.sees("It is not wiped", "dialog")
        await visitor.press_button("Unbind the device")
        await visitor.sees("Unbound", "[aria-labelledby=facts_binding]")
        assert not await visitor.has_button("Unbind")


async def test_an_unknown_device_is_reported(api: Api) -> None:
    """An address of one that was never there, and one that is deleted while it is looked at."""
    bound = await api.bound("BP-1")
    async with signed_in(api.url, api.key) as visitor:
        await visitor.tab.run("location.hash = '#/devices/dev_nowhere'")
        await visitor.sees("There is no device 'dev_nowhere' in this project", ".notice")
        await visitor.opens(bound)
        body(await api.back_end.delete(f"/v1/devices/{bound['id']}"), 200)
        await visitor.sees(f"There is no device '{bound['id']}' in this project", ".notice")
        assert not await visitor.has_button("Reset")


async def test_text_never_becomes_markup(api: Api) -> None:
    """Names, serial numbers, metadata, a device's own words in events and errors: shown to the letter, and inert."""
    serial = f"BP-1{SCRIPT}"
    bound = await api.bound(serial)
    change = {"name": SCRIPT, "metadata": {SCRIPT: SCRIPT}}
    body(await api.back_end.patch(f"/v1/devices/{bound['id']}", json=change), 200)
    path = f"/v1/devices/{bound['id']}/commands"
    command = body(await api.back_end.post(path, json={"type": "reboot"}), 201)
    failed = {"status": "failed", "error": {"code": SCRIPT[:60], "message": SCRIPT}, "result": {SCRIPT: SCRIPT}}
    body(await api.as_(bound["device_token"]).post(f"/v1/devices/me/commands/{command['id']}/ack", json=failed), 200)
    async with signed_in(api.url, api.key) as visitor:
        await visitor.lists(SCRIPT)
        await visitor.opens(bound)
        await visitor.sees(SCRIPT, "h1")
        await visitor.sees(SCRIPT, ".trail")
        await visitor.sees(SCRIPT, "[aria-labelledby=facts_metadata]")
        await visitor.press_button("Reset")
        await visitor.sees(serial, "dialog")
        assert await visitor.tab.run("window.hit") is None
        assert await visitor.tab.run("document.querySelectorAll('img, body script, [onerror]').length") == 0
        await visitor.tab.run(f"location.hash = '#/?search=' + encodeURIComponent({json.dumps(SCRIPT)})")
        await visitor.lists(SCRIPT)
        assert await visitor.tab.run("window.hit") is None
