"""The page to try the API, in a real browser: by keyboard and on a phone."""

import json
from collections.abc import AsyncIterator

import pytest

from gateway.http.resources.operations import OPERATIONS
from tests.http.support import Api
from tests.support.chromium import Page, browser


@pytest.fixture
async def page(api: Api) -> AsyncIterator[Page]:
    """The page in a browser, as it is when it has been opened."""
    async with browser() as tab:
        await tab.screen(1280, 900)
        await tab.goto(f"{api.url}/docs")
        await tab.until(f"document.querySelectorAll('.operation').length === {len(OPERATIONS)}")
        yield tab
        assert tab.complaints == []
        assert [url for url in tab.requests if not url.startswith((api.url, "data:"))] == []


async def test_a_device_is_registered_and_bound_by_keyboard(api: Api, page: Page) -> None:
    """Key, search, form, answer, and on to the next call with the id that was answered; no mouse."""
    await page.tab_to("#apiKey")
    await page.type(api.key)
    await page.tab_to("#find")
    await page.type("register")
    await page.tab_to("nav a[href='#register_device']")
    await page.press("Enter")
    await page.until("document.activeElement.matches('#register_device > summary')")
    await page.tab_to("#register_device button.send")
    await page.press("Enter")
    await page.until("document.querySelector('#register_device .answer.good pre')?.textContent")
    assert await page.run("document.querySelector('#register_device .status').textContent") == "201 Created"
    device = json.loads(await page.run("document.querySelector('#register_device .answer pre').textContent"))
    assert device["serial_number"] == "BP-000123"

    await page.tab_to("#register_device .answer .actions button:nth-of-type(3)")
    await page.press("Enter")
    await page.until("document.activeElement.matches('#bind_device > summary')")
    await page.tab_to("#bind_device button.send")
    await page.press("Enter")
    await page.until("document.querySelector('#bind_device .answer.good pre')?.textContent")
    bound = json.loads(await page.run("document.querySelector('#bind_device .answer pre').textContent"))
    assert (bound["id"], bound["status"]) == (device["id"], "bound")
    assert await page.run("document.getElementById('deviceToken').value") == bound["device_token"]


async def test_the_curl_line_works_and_holds_no_secret(api: Api, page: Page) -> None:
    """What it says is what the page sends: method, address, headers, body; the credential is a variable."""
    await page.goto(f"{api.url}/docs#register_device")
    await page.until("document.querySelector('#register_device .curl pre')?.textContent")
    line = await page.run("document.querySelector('#register_device .curl pre').textContent")
    assert line == (
        f"curl -s -X POST '{api.url}/v1/devices' \\\n"
        '  -H "Authorization: Bearer $KEY" \\\n'
        "  -H 'Content-Type: application/json' \\\n"
        """  -d '{"model":"bota_pin","name":"Ward 3, bed 2","serial_number":"BP-000123"}'"""
    )


async def test_missing_input_is_reported_before_a_request(api: Api, page: Page) -> None:
    """No key, no id: a sentence, and the focus where it is to be entered."""
    sent = len(page.requests)
    for operation, missing in (("list_devices", "apiKey"), ("refresh_token", None)):
        await page.run(f"document.getElementById('{operation}').open = true")
        await page.until(f"document.querySelector('#{operation} form')")
        await page.run(f"document.querySelector('#{operation} form').requestSubmit()")
        await page.until(f"document.querySelector('#{operation} .answer.bad .status')")
        focused = await page.run("document.activeElement.id")
        assert focused == missing or await page.run("document.activeElement.dataset.path") == "device_id"
    assert page.requests[sent:] == []
    assert api.dump()


async def test_an_error_is_shown_as_it_is(api: Api, page: Page) -> None:
    """Status and body of a refusal; a key with markup in it stays text."""
    await page.run("sessionStorage.setItem('apiKey', 'sk_live_' + 'x'.repeat(34))")
    await page.goto(f"{api.url}/docs#list_devices")
    await page.until("document.querySelector('#list_devices form')")
    await page.run("document.querySelector('#list_devices form').requestSubmit()")
    await page.until("document.querySelector('#list_devices .answer.bad pre')?.textContent")
    assert await page.run("document.querySelector('#list_devices .status').textContent") == "401 Unauthorized"
    assert '"unauthorized"' in await page.run("document.querySelector('#list_devices .answer pre').textContent")
    page.complaints.clear()  # the browser notes every 401


async def test_the_event_stream_is_shown_as_it_comes_and_can_be_stopped(api: Api, page: Page) -> None:
    """An event that happens meanwhile appears; Stop ends it."""
    await page.run(f"sessionStorage.setItem('apiKey', {json.dumps(api.key)})")
    await page.goto(f"{api.url}/docs#stream_events")
    await page.until("document.querySelector('#stream_events form')")
    await page.run("document.querySelector('#stream_events form').requestSubmit()")
    await page.until("document.querySelector('#stream_events .answer pre')?.textContent.includes('retry:')")
    await api.registered("BP-STREAMED")
    await page.until("document.querySelector('#stream_events .answer pre').textContent.includes('BP-STREAMED')")
    await page.run(
        "[...document.querySelectorAll('#stream_events button')].find((b) => b.textContent === 'Stop').click()"
    )
    await page.until("!document.querySelector('#stream_events button.send').disabled")


@pytest.mark.parametrize("dark", [False, True])
async def test_it_fits_a_phone_in_both_themes(page: Page, *, dark: bool) -> None:
    """Nothing is wider than 360 pixels, opened or not; text stands out from its ground by 4.5 to 1 (WCAG AA)."""
    await page.screen(360, 740, dark=dark)
    await page.run("document.querySelectorAll('.operation').forEach((each) => { each.open = true; })")
    await page.until("document.querySelectorAll('.operation > form').length > 10")
    assert await page.run("document.documentElement.scrollWidth") <= 360
    assert await page.run(CONTRASTS) == []


CONTRASTS = """
(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const light = (color) => {
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((part) => part / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    const color = getComputedStyle(element).backgroundColor;
    return color === "rgba(0, 0, 0, 0)" && element.parentElement ? ground(element.parentElement) : color;
  };
  const poor = new Set();
  for (const element of document.querySelectorAll("body *")) {
    if (![...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim())) continue;
    const [one, other] = [light(getComputedStyle(element).color), light(ground(element))].sort((a, b) => b - a);
    if ((one + 0.05) / (other + 0.05) < 4.5) poor.add(`${element.tagName}.${element.className}`);
  }
  return [...poor];
})()
"""
