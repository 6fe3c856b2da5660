"""What the page says of a device: names that turn nothing around, and promises that hold."""

import json

from tests.http.support import Api, body
from tests.support.page import PageUser, signed_in

HEBREW = "חדר 2"
OLD = "Bed\u202e 1"
"""A name from before the rule."""


async def loose(visitor: PageUser, text: str) -> list[str]:
    """Where this text stands without an element that isolates its direction."""
    found: list[str] = await visitor.tab.run(
        "(() => { const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];"
        f"while (walk.nextNode()) if (walk.currentNode.data.includes({json.dumps(text)}))"
        " found.push(walk.currentNode.parentElement); const all = found.length;"
        " return all ? found.filter((each) => !each.closest('bdi')).map((each) => each.outerHTML) : ['nowhere']; })()"
    )
    return found


async def test_names_are_isolated_by_direction(api: Api) -> None:
    """In the list, the heading, the facts, the events and each dialog; in the title by Unicode's isolates."""
    device = await api.registered(f"{HEBREW} 7", name=HEBREW, metadata={HEBREW: HEBREW}, firmware_version=HEBREW)
    path = f"/v1/devices/{device['id']}"
    bound = body(await api.back_end.post(f"{path}/bind", json={"end_user_id": "eu_1"}), 200)
    command = body(await api.back_end.post(f"{path}/commands", json={"type": "reboot"}), 201)
    failed = {"status": "failed", "error": {"code": HEBREW, "message": HEBREW}}
    token = api.as_(bound["device_token"])
    body(await token.post(f"/v1/devices/me/commands/{command['id']}/ack", json=failed), 200)
    async with signed_in(api.url, api.key) as visitor:
        await visitor.lists(HEBREW)
        assert await loose(visitor, HEBREW) == []
        await visitor.opens(device)
        await visitor.sees(HEBREW, ".trail [data-state=failed]")
        assert await visitor.tab.run("document.title") == f"\u2068{HEBREW}\u2069 · Device gateway"
        for button in ("Reset", "Unbind"):
            await visitor.press_button(button)
            await visitor.sees(HEBREW, "dialog")
            assert await loose(visitor, HEBREW) == []
            await visitor.tab.press("Escape")
            await visitor.tab.until("!document.querySelector('dialog')")


async def test_invisible_characters_of_an_old_name_are_shown(api: Api) -> None:
    """A registry may have names from before the rule: the character is written out, here as in the terminal."""
    device = await api.registered("BP-1")
    await api.store.write(lambda tx: tx.run("UPDATE devices SET name = ?, serial_number = ?", OLD, OLD))
    async with signed_in(api.url, api.key) as visitor:
        await visitor.lists("Bed\\u202e 1")
        await visitor.opens(device)
        await visitor.press_button("Reset")
        await visitor.sees("Yes, wipe Bed\\u202e 1.", "dialog")
        assert "\u202e" not in await visitor.tab.run("document.title + document.body.innerText")


async def test_the_cancel_dialog_says_that_nothing_is_restored(api: Api) -> None:
    """The question before a reset and the one before its cancel say what a cancel leaves: unbound, token revoked."""
    bound = await api.bound("BP-1")
    async with signed_in(api.url, api.key) as visitor:
        await visitor.opens(bound)
        await visitor.press_button("Reset")
        await visitor.sees("Cancelling the reset later does not undo this", "dialog")
        await visitor.sees("it stays unbound, its token is revoked, and it has to be bound again", "dialog")
        await visitor.tab.press("Escape")
        await visitor.tab.until("!document.querySelector('dialog')")
        await api.reset(bound["id"])
        await visitor.press_button("Cancel the reset")
        await visitor.sees("This brings nothing back: the device stays unbound, its old token is revoked", "dialog")


async def test_without_the_broker_presence_is_shown_as_unknown(api: Api) -> None:
    """The header, a banner, the figures, the list, the device and the questions follow ``/ready``; all comes back."""
    bound = await api.bound("BP-1")
    body(await api.as_(bound["device_token"]).post("/v1/devices/me/heartbeat"), 200)
    async with signed_in(api.url, api.key) as visitor:
        await visitor.lists("BP-1")
        await visitor.sees("Online", ".devices")
        api.readiness["ready"] = api.readiness["broker"]["connected"] = False
        api.readiness["broker"]["error"] = "connection refused"
        await visitor.sees("Broker away", "#live")
        await visitor.sees("Which devices are online is not known", "#unready")
        await visitor.sees("connection refused", "#unready")
        await visitor.sees("Unknown", ".devices")
        await visitor.sees("1 at last", ".glance li:nth-child(2)")
        assert (await visitor.text(".glance li:nth-child(2)")).split("\n")[1] == "?"
        await visitor.opens(bound)
        await visitor.sees("Unknown", ".title")
        await visitor.press_button("Reset")
        await visitor.sees("when the broker is back", "dialog")
        assert "within seconds" not in await visitor.text("dialog")
        await visitor.tab.press("Escape")
        await visitor.tab.until("!document.querySelector('dialog')")
        await visitor.press_button("Unbind")
        await visitor.sees("its connection is cut when the broker can be reached again", "dialog")
        await visitor.tab.press("Escape")
        await visitor.tab.until("!document.querySelector('dialog')")
        await api.reset(bound["id"])
        await visitor.sees("Waiting for the broker, which is away", ".reset")
        api.readiness["ready"] = api.readiness["broker"]["connected"] = True
        await visitor.sees("Waiting for the device", ".reset")
        await visitor.sees("Live", "#live")
        await visitor.sees("Online", ".title")
        await visitor.tab.until("document.getElementById('unready').hidden")


async def test_a_ble_device_shows_that_a_reset_waits(api: Api) -> None:
    """A relay's heartbeat shows presence and delivers nothing: online or not, WiFi or cellular is waited for."""
    bound = await api.bound("BP-1")
    beat = {"connection_type": ["ble"]}
    body(await api.back_end.post(f"/v1/devices/{bound['id']}/heartbeat", json=beat), 200)
    async with signed_in(api.url, api.key) as visitor:
        await visitor.opens(bound)
        await visitor.sees("Online", ".title")
        await visitor.press_button("Reset")
        await visitor.sees("The reset waits for WiFi or cellular", "dialog")
        assert "within seconds" not in await visitor.text("dialog")
        await visitor.tab.press("Escape")
        await visitor.tab.until("!document.querySelector('dialog')")
        await api.reset(bound["id"])
        await visitor.sees("Waiting for WiFi or cellular", ".reset")
