"""The view of resets in Chromium: open ones by age, finished ones by outcome, links that can be kept, and CSV."""

from pathlib import Path

from tests.http.page.resets import answered, reset
from tests.http.page.test_accessibility import WIDE, overflowing, violations
from tests.http.support import Api, body
from tests.support.page import PHONE, PageUser, signed_in
from tests.support.wait import eventually

DAY_MS = 86_400_000
AGES = ["under 1 hour", "1 hour to 1 day", "1 day to 7 days", "7 days to 30 days", "30 days and more"]
HOSTILE = "=1+1 <img src=x>"


async def rows(visitor: PageUser, which: str) -> list[str]:
    """The devices of a list, from above."""
    found: list[str] = await visitor.tab.run(
        f"[...document.querySelectorAll('.{which} tbody th a')].map((each) => each.textContent)"
    )
    return found


async def shows(visitor: PageUser, which: str, *serials: str) -> None:
    """Wait until a list has these devices."""

    async def has() -> bool:
        return await rows(visitor, which) == list(serials)

    await eventually(has, f"{which}: {serials}")


async def goes(visitor: PageUser, address: str, words: str) -> None:
    """Go to an address of the page, and wait for what stands there."""
    await visitor.tab.run(f"location.hash = '{address}'")
    await visitor.sees(words, "main")


async def saves_to(visitor: PageUser, folder: Path) -> None:
    """Have downloads saved in this folder."""
    context = {"browserContextId": visitor.tab.context}
    await visitor.tab.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder), **context)


async def test_resets_are_shown_by_age_and_by_outcome(api: Api) -> None:
    """The oldest open one first; what happens moves a reset from one list to the other; text stays text."""
    old = await reset(api, "BP-1", reason=HOSTILE)
    api.clock.ahead_ms += 8 * DAY_MS
    new = await reset(api, "BP-2")
    async with signed_in(api.url, api.key) as visitor:
        await visitor.tab.click("#toResets")
        await shows(visitor, "open", "BP-1", "BP-2")
        assert HOSTILE in await visitor.text(".open")
        await visitor.sees("30 days and more", ".ages")
        ages = (await visitor.text(".ages")).split("\n")
        assert [each for each in ages if each.isdecimal()] == ["1", "0", "0", "1", "0"]
        assert [each for each in ages if each and not each.isdecimal()] == AGES
        await visitor.sees("No reset has ended like this", "main")
        await answered(api, new, "delivered")
        await visitor.sees("wiping itself", ".open")
        await answered(api, new, "executed")
        await shows(visitor, "finished", "BP-2")
        await shows(visitor, "open", "BP-1")
        assert "back end" in await visitor.text(".finished")
        body(await api.back_end.post(f"/v1/devices/{old['id']}/commands/{old['command']['id']}/cancel"), 200)
        await shows(visitor, "finished", "BP-1", "BP-2")
        await visitor.sees("No reset is open", "main")


async def test_filters_stand_in_the_address(api: Api) -> None:
    """Outcome and days: a link that is opened shows the same; a wrong day is named."""
    done, gone = await reset(api, "BP-1"), await reset(api, "BP-2")
    await answered(api, done, "delivered", "executed")
    body(await api.back_end.post(f"/v1/devices/{gone['id']}/commands/{gone['command']['id']}/cancel"), 200)
    async with signed_in(api.url, api.key) as visitor:
        await goes(visitor, "#/resets", "BP-2")
        await visitor.tab.run(
            "(() => { const choice = document.getElementById('outcome'); choice.value = 'executed';"
            " choice.dispatchEvent(new Event('change')); })()"
        )
        await shows(visitor, "finished", "BP-1")
        assert await visitor.tab.run("location.hash") == "#/resets?outcome=executed"
        await visitor.tab.goto(f"{api.url}/#/resets?outcome=cancelled&from=2020-01-01&to=2999-12-31")
        await shows(visitor, "finished", "BP-2")
        assert await visitor.tab.run("['from', 'to'].map((each) => document.getElementById(each).value).join()") == (
            "2020-01-01,2999-12-31"
        )
        await goes(visitor, "#/resets?to=2020-01-01", "No reset has ended like this")
        await goes(visitor, "#/resets?from=2026-02-30", "A day in the address is none")
        await goes(visitor, "#/resets?from=2026-03-02&to=2026-03-01", "before the first one")
        await goes(visitor, "#/resets?outcome=open", "No reset is open")
        assert not await visitor.tab.run("document.querySelector('.finished').checkVisibility()")


async def test_a_list_is_exported_as_csv(api: Api, tmp_path: Path) -> None:
    """All of it, not only what is shown, with the mark by which a spreadsheet reads UTF-8."""
    for number in range(25):
        made = await reset(api, f"BP-{number:02}", reason=HOSTILE)
        body(await api.back_end.post(f"/v1/devices/{made['id']}/commands/{made['command']['id']}/cancel"), 200)
    async with signed_in(api.url, api.key) as visitor:
        await saves_to(visitor, tmp_path)
        await goes(visitor, "#/resets?outcome=cancelled", "BP-24")
        assert len(await rows(visitor, "finished")) == 20
        await visitor.press_button("Export as CSV")
        file = tmp_path / "resets-finished.csv"

        async def is_there() -> bool:
            return file.exists()

        await eventually(is_there, "the file")
        text = file.read_bytes().decode("utf-8-sig")
        assert file.read_bytes().startswith(b"\xef\xbb\xbf")
        assert len(text.splitlines()) == 26
        assert text.count(f"'{HOSTILE}") == 25
        await visitor.press_button("Show more")
        await visitor.sees("BP-00", ".finished")


async def test_a_reset_takes_a_reason_and_a_wish_for_recordings(api: Api) -> None:
    """The question says what keeping and wiping mean, and the request carries both."""
    bound = await api.bound("BP-1")
    async with signed_in(api.url, api.key) as visitor:
        await visitor.opens(bound)
        await visitor.press_button("Reset")
        await visitor.sees("Recordings that are not uploaded yet are lost", "dialog")
        assert "name no person here" in await visitor.text("dialog")
        await visitor.tab.click("#recordings_wipe")
        await visitor.tab.run("document.getElementById('reason').focus()")
        await visitor.tab.type("Returned by ward 3")
        await visitor.tab.click("#sure")
        await visitor.press_button("Reset the device")
        await visitor.sees("Waiting for the device", ".reset")
    (listed,) = body(await api.back_end.get("/v1/resets"), 200)["data"]
    assert (listed["reason"], listed["recordings"]) == ("Returned by ward 3", "wipe")


async def test_the_view_fits_a_phone_and_passes_the_accessibility_check(api: Api) -> None:
    """With names and reasons as long as they may get, in both themes, and with nothing to show."""
    async with signed_in(api.url, api.key) as visitor:
        await goes(visitor, "#/resets", "No reset is open")
        assert await violations(visitor) == []
        made = await reset(api, WIDE, reason="W" * 200)
        await answered(api, made, "delivered", "executed")
        await reset(api, "BP-2", reason="W" * 200)
        await shows(visitor, "open", "BP-2")
        for dark in (False, True):
            for width, height in (PHONE, (1280, 800)):
                await visitor.tab.screen(width, height, dark=dark)
                assert (width, dark, await violations(visitor), await overflowing(visitor)) == (width, dark, [], [])


async def test_a_certificate_is_shown_printed_and_saved(api: Api, tmp_path: Path) -> None:
    """From the list and from the device, by a link that can be kept; on a phone too; scripts are off in its frame."""
    made = await reset(api, "BP-1", reason=HOSTILE)
    await answered(api, made, "delivered", "executed")
    address = f"#/devices/{made['id']}/resets/{made['command']['id']}"
    async with signed_in(api.url, api.key) as visitor:
        await saves_to(visitor, tmp_path)
        await goes(visitor, "#/resets", "Certificate")
        await visitor.tab.click(".finished tbody td a")
        await visitor.tab.until("document.querySelector('iframe')?.contentDocument?.body?.innerText.includes('BP-1')")
        inside = "document.querySelector('iframe').contentDocument"
        assert HOSTILE in await visitor.tab.run(f"{inside}.body.innerText")
        assert await visitor.tab.run(f"getComputedStyle({inside}.querySelector('main')).backgroundColor") == (
            "rgb(255, 255, 255)"
        )
        assert await visitor.tab.run("document.querySelector('iframe').sandbox.contains('allow-scripts')") is False
        await visitor.tab.run("document.querySelector('iframe').contentWindow.print = () => (window.printed = true)")
        await visitor.press_button("Print")
        assert await visitor.tab.run("window.printed")
        for dark, screen in ((False, (1280, 800)), (True, PHONE)):
            await visitor.tab.screen(*screen, dark=dark)
            assert (dark, await violations(visitor), await overflowing(visitor)) == (dark, [], [])
        for button, ending, begins in (("Download as page", "html", "<!doctype"), ("Download signed", "jwt", "ey")):
            await visitor.press_button(button)
            file = tmp_path / f"certificate-{made['command']['id']}.{ending}"
            await eventually(file.exists, str(file))
            assert file.read_text(encoding="utf-8").startswith(begins)
        await visitor.opens(made)
        await visitor.tab.click(".reset a")
        await visitor.tab.until(f"location.hash === '{address}'")
        await visitor.tab.goto(f"{api.url}/{address}?certificate=cert_9")
        await visitor.sees("Leave 'certificate' out", "main")
