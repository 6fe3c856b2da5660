"""The page at ``/`` for everybody: by screen reader, on a phone, in both themes, with little and with much to show."""

import json
from collections.abc import AsyncIterator
from importlib.resources import files

import pytest

from tests.http.support import Api, Json, body
from tests.support.page import PHONE, PageUser, open_page, signed_in
from tests.support.receipts import receipt_of

AXE = (files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8")
SERIOUS = ("serious", "critical")
WIDE = "W" * 120
"""No name may be longer than this by much, and none has to have a space in it."""


async def violations(visitor: PageUser) -> list[str]:
    """What axe finds serious or worse in what is shown: rule and place."""
    if not await visitor.tab.run("typeof axe === 'object'"):
        await visitor.tab.run(f"{AXE};0")
    found: Json = json.loads(await visitor.tab.run("axe.run(document, {}).then((found) => JSON.stringify(found))"))
    assert len(found["passes"]) > 10
    return [
        f"{each['id']}: {node['html']} {node['failureSummary']}"
        for each in found["violations"]
        for node in each["nodes"]
        if each["impact"] in SERIOUS
    ]


async def overflowing(visitor: PageUser) -> list[str]:
    """What is wider than the screen."""
    found: list[str] = await visitor.tab.run(
        "document.documentElement.scrollWidth <= innerWidth ? [] : [...document.querySelectorAll('body *')]"
        ".filter((each) => each.getBoundingClientRect().right > innerWidth + 1)"
        ".map((each) => each.outerHTML.slice(0, 120))"
    )
    return found


@pytest.fixture
async def rich(api: Api) -> Json:
    """A device with all that there can be, names as long as they may get, a reset that it knows of, and a job."""
    device = await api.registered(WIDE, name=WIDE, metadata={WIDE: WIDE})
    path = f"/v1/devices/{device['id']}"
    bound = body(await api.back_end.post(f"{path}/bind", json={"end_user_id": f"eu_{'9' * 64}"}), 200)
    client = api.as_(bound["device_token"])
    health_fields = {
        "battery_percent": 4,
        "storage_used_mb": 8190,
        "storage_total_mb": 8192,
        "signal_strength_dbm": -91,
    }
    body(await client.post("/v1/devices/me/heartbeat", json={**health_fields, "device_state": "lowBattery"}), 200)
    command = body(await api.back_end.post(f"{path}/commands", json={"type": "reboot"}), 201)
    failed = {"status": "failed", "error": {"code": "no_power", "message": WIDE}}
    body(await client.post(f"/v1/devices/me/commands/{command['id']}/ack", json=failed), 200)
    command = await api.reset(device["id"])
    delivered = {"status": "delivered", "receipt": receipt_of(bound["device_token"], command, "delivered")}
    body(await client.post(f"/v1/devices/me/commands/{command['id']}/ack", json=delivered), 200)
    job = {"name": WIDE, "reason": WIDE, "action": "factory_reset", "targets": {"device_ids": [device["id"], WIDE]}}
    body(await api.back_end.post("/v1/jobs", json=job), 201)
    return device


async def views(visitor: PageUser, device: Json) -> AsyncIterator[str]:
    """Goes through what there is to see."""
    await visitor.sees("WWW", ".devices")
    yield "fleet"
    await visitor.tab.run("location.hash = '#/?search=nobody'")
    await visitor.sees("No device fits", ".empty")
    yield "nothing found"
    await visitor.opens(device)
    await visitor.tab.until("document.querySelectorAll('.chart .line').length === 3")
    await visitor.tab.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    yield "device"
    await visitor.tab.run("location.hash = '#/events'")
    await visitor.sees("Reset delivered", ".audit")
    yield "events"
    await visitor.tab.run("location.hash = '#/jobs'")
    await visitor.sees("WWW", ".joblist")
    yield "jobs"
    await visitor.tab.run("document.querySelector('.joblist a').click()")
    await visitor.sees("Running at", ".standing")
    await visitor.sees("WWW", ".targets")
    yield "job"


QUESTIONS = {"Edit …": "Other metadata", "Change …": "Bitrate", "Send a command": "Good for", "Reset": "Yes, wipe"}


async def questions(visitor: PageUser, api: Api) -> AsyncIterator[str]:
    """Goes through the dialogs of a device that is bound, and of one that is not, to what bind answers."""
    bound = await api.bound("BP-2")
    await api.registered("BP-3", name=WIDE, metadata={WIDE: WIDE})
    await visitor.opens(bound)
    for button, words in QUESTIONS.items():
        await visitor.press_button(button)
        await visitor.sees(words, "dialog")
        yield button
        await visitor.tab.press("Escape")
        await visitor.tab.until("!document.querySelector('dialog')")
    await visitor.opens(body(await api.back_end.get("/v1/devices?serial_number=BP-3"), 200)["data"][0])
    await visitor.press_button("Edit …")
    yield "edit with much"
    await visitor.tab.press("Escape")
    await visitor.tab.until("!document.querySelector('dialog')")
    await visitor.press_button("Bind …")
    await visitor.tab.run("document.getElementById('endUser').value = 'eu_9'")
    yield "bind"
    await visitor.press_button("Bind the device")
    await visitor.sees("shown this once", "dialog")
    yield "bound"
    await visitor.press_button("I have it")
    async for question in questions_of_a_selection(visitor):
        yield question


async def questions_of_a_selection(visitor: PageUser) -> AsyncIterator[str]:
    """Goes through what can be done to several devices, and the questions before a job is stopped."""
    await visitor.tab.run("location.hash = '#/'")
    await visitor.sees("WWW", ".devices")
    await visitor.tab.run("document.getElementById('selectPage').click()")
    await visitor.sees("devices selected", ".selection")
    yield "selection"
    for button, words in {"Tag …": "A device without the tag", "Reset …": "is left out"}.items():
        await visitor.press_button(button)
        await visitor.sees(words, "dialog")
        yield button
        await visitor.tab.press("Escape")
        await visitor.tab.until("!document.querySelector('dialog')")
    await visitor.tab.run("location.hash = '#/jobs'")
    await visitor.sees("WWW", ".joblist")
    await visitor.tab.run("document.querySelector('.joblist a').click()")
    await visitor.press_button("Cancel …")
    await visitor.sees("What was delivered cannot be undone", "dialog")
    yield "cancel a job"
    await visitor.tab.press("Escape")


@pytest.mark.parametrize("dark", [False, True])
async def test_pages_fit_a_phone_and_pass_the_accessibility_check(api: Api, rich: Json, *, dark: bool) -> None:
    """Each view on a phone, and the dialog: axe finds nothing serious, contrast included, and nothing hangs over."""
    async with signed_in(api.url, api.key) as visitor:
        await visitor.tab.screen(*PHONE, dark=dark)
        async for view in views(visitor, rich):
            assert (view, await violations(visitor), await overflowing(visitor)) == (view, [], [])
        async for question in questions(visitor, api):
            assert (question, await violations(visitor), await overflowing(visitor)) == (question, [], [])


async def test_pages_fit_a_desktop_and_pass_the_accessibility_check(api: Api, rich: Json) -> None:
    """At 1280 pixels, and the sign-in with its refusal."""
    async with open_page(api.url) as visitor:
        await visitor.tab.goto(f"{api.url}/")
        await visitor.tab.until("document.activeElement.id === 'key'")
        await visitor.tab.type("no key")
        await visitor.tab.press("Enter")
        await visitor.sees("begins with sk_", "#refused")
        assert (await violations(visitor), await overflowing(visitor)) == ([], [])
        await visitor.sign_in(api.key)
        async for view in views(visitor, rich):
            assert (view, await violations(visitor), await overflowing(visitor)) == (view, [], [])


async def test_the_chosen_theme_is_remembered(api: Api) -> None:
    """System, light, dark; over a reload."""
    ground = "getComputedStyle(document.body).backgroundColor"
    async with signed_in(api.url, api.key) as visitor:
        light = await visitor.tab.run(ground)
        await visitor.press_button("Theme: system")
        await visitor.press_button("Theme: light")
        assert await visitor.has_button("Theme: dark")
        dark = await visitor.tab.run(ground)
        assert dark != light
        await visitor.tab.goto(f"{api.url}/")
        await visitor.live()
        assert await visitor.tab.run(ground) == dark
