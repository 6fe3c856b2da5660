"""An upgrade from a gateway without MQTT passwords: no device is locked out, and the former tokens left are counted."""

import json
from pathlib import Path
from typing import Any

from device_sim import MemoryFlash
from device_sim.actions import Area
from device_sim.binding import Binding, Endpoint
from tests.e2e.program import run, script
from tests.e2e.support import Site, running, running_site, token_of
from tests.support import wire
from tests.support.former_registry import former_registry


async def _told_by_the_doctor(site: Site) -> dict[str, Any]:
    outcome = await run(script("gateway"), "doctor", "--json", "--data-dir", str(site.gateway.data))
    (finding,) = [each for each in json.loads(outcome.out)["findings"] if each["name"] == "MQTT passwords"]
    return dict(finding)


async def test_current_firmware_works_with_a_former_token(tmp_path: Path) -> None:
    """It derives, is refused, refreshes over HTTP and is in; until then the doctor counts it and names the remedy."""
    former = former_registry(tmp_path / "gateway" / "data")
    async with running_site(tmp_path, "embedded") as site:
        assert await site.password_answer(former.id, former.token) == wire.ACCEPTED
        finding = await _told_by_the_doctor(site)
        assert (finding["level"], finding["says"][:8]) == ("warning", "1 device")
        assert "token/refresh" in finding["remedy"]
        flash, endpoint = MemoryFlash(), Endpoint(site.gateway.host, site.gateway.port)
        binding = Binding(former.id, 1, former.token, {}, endpoint)
        flash.write(Area.WIPED, "pairing", binding.pairing())
        flash.write(Area.WIPED, "wifi_networks", [{"ssid": "ward", "psk": "a password"}])
        flash.write(Area.WIPED, "device_token", former.token)
        device = site.device("SN-OLD", flash=flash)
        async with running(device):
            await device.wait_for("online")
            assert device.counts["token_refreshed"] == 1
            assert await site.password_answer(former.id, former.token) == wire.NOT_AUTHORISED
            assert await site.password_answer(former.id, token_of(device)) == wire.NOT_AUTHORISED
        assert (await _told_by_the_doctor(site))["level"] == "ok"
