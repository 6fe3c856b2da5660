"""The page beside a living fleet: a gateway process, its broker, a simulated device, and an operator who watches."""

from pathlib import Path

from tests.e2e.program import clean_environment, run, script
from tests.e2e.support import running, running_site
from tests.support.page import signed_in

TRY_NOW = "[...document.querySelectorAll('#lost button')].find((each) => each.checkVisibility())?.click()"
RECORD_LIVE_WORDS = """
    window.liveWords = [];
    const liveWord = document.getElementById('liveWord');
    const observer = new MutationObserver(() => liveWords.push(liveWord.textContent));
    observer.observe(liveWord, {childList: true, characterData: true, subtree: true});
"""


async def test_the_page_follows_a_reset_to_its_end(tmp_path: Path) -> None:
    """It is asked for on the page while the device is away; when the device is back, the page follows by itself."""
    async with running_site(tmp_path / "site", "mosquitto") as site:
        device = site.device("WATCHED-1")
        device_id = (await device.provision(end_user_id="eu_1")).device_id
        assert f"  page  {site.gateway.url}/" in site.gateway.out
        async with signed_in(site.gateway.url, site.key) as visitor:
            await visitor.lists("WATCHED-1")
            async with running(device):
                await visitor.sees("Online", ".devices tbody")
                await visitor.opens({"id": device_id})
                await visitor.sees("Device online", ".body")
            await visitor.press_button("Reset")
            await visitor.tab.run("document.getElementById('sure').click()")
            await visitor.press_button("Reset the device")
            await visitor.sees("Waiting for the device", ".reset")
            assert await visitor.tab.run("document.querySelectorAll('.steps li[data-done]').length") == 1
            async with running(device):
                await device.wait_for("unprovisioned")
                await visitor.sees("has wiped itself, and signed for it", ".reset")
            assert await visitor.tab.run("document.querySelectorAll('.steps li[data-done]').length") == 3
            await visitor.sees("Wiped: device token, pairing, wifi networks", ".trail")
            await visitor.sees("Reset completed", ".body")
            await visitor.sees("Unbound", "[aria-labelledby=facts_binding]")
            assert await visitor.has_button("Reset")


async def test_the_page_reconnects_after_a_lost_connection(tmp_path: Path) -> None:
    """Killed, the gateway is missed in words; started again, the page goes on by itself, and misses nothing."""
    async with running_site(tmp_path / "site", "embedded") as site:
        await site.api.call("POST", "/v1/devices", {"serial_number": "BP-1"})
        async with signed_in(site.gateway.url, site.key) as visitor:
            await visitor.lists("BP-1")
            await site.gateway.kill()
            await visitor.tab.until("document.getElementById('lost').checkVisibility()")
            await visitor.sees("The connection is lost.", "#lost")
            assert await visitor.text("#liveWord") == "Not live"
            assert await visitor.devices() == ["BP-1"], "what was known stays to be seen"
            await visitor.sees("Next try in", "#lostWhen")
            await visitor.sees("Try now", "#lost")
            await visitor.tab.run(RECORD_LIVE_WORDS)
            await site.gateway.restart()
            await visitor.tab.run(TRY_NOW)  # unless the page has tried by itself meanwhile
            await visitor.live()
            await visitor.tab.until("liveWords.at(-1)?.startsWith('Live')")  # the broker may connect after the page
            assert (await visitor.tab.run("liveWords"))[0] in ("Live again", "Broker away")
            assert not await visitor.tab.run("document.getElementById('lost').checkVisibility()")
            await site.api.call("POST", "/v1/devices", {"serial_number": "BP-2"})
            await visitor.lists("BP-2", "BP-1")
            await site.gateway.stop()
            await visitor.tab.until("document.getElementById('lost').checkVisibility()")
            await visitor.sees("The connection is lost.", "#lost")
            await site.gateway.restart()
            await visitor.live()


async def test_without_the_broker_presence_is_shown_as_unknown(tmp_path: Path) -> None:
    """Mosquitto dies: the page and the commands say so, and call no device online or offline; it comes back."""
    async with running_site(tmp_path / "site", "mosquitto") as site:
        device = site.device("WATCHED-1")
        await device.provision(end_user_id="eu_1")
        listing = ("devices", "list", "--data-dir", str(site.gateway.data))
        over_http = clean_environment(GATEWAY_API_KEY=site.key, GATEWAY_URL=site.gateway.url)
        async with signed_in(site.gateway.url, site.key) as visitor:
            async with running(device):
                await visitor.sees("Online", ".devices tbody")
                assert "online" in (await run(script("gateway"), *listing)).out
                await site.broker.stop()
            await visitor.sees("The gateway is not connected to its broker.", "#unready")
            await visitor.sees("Unknown", ".devices tbody")
            assert await visitor.text("#liveWord") == "Broker away"
            for outcome in (
                await run(script("gateway"), *listing),
                await run(script("gateway"), "top", environment=over_http),
            ):
                assert "which devices are online is not known" in outcome.err
                assert "unknown" in outcome.out
            await site.broker.start()
            await visitor.tab.until("document.getElementById('unready').hidden")
            async with running(device):
                await visitor.sees("Online", ".devices tbody")
            await visitor.sees("Live", "#liveWord")
