"""Recordings of two owners of one device, from the request to the certificate, on real parts."""

from pathlib import Path

from tests.e2e.support import details, running, running_site


async def test_an_owner_never_gets_what_another_one_recorded(tmp_path: Path) -> None:
    """The first reset keeps two, which the next owner does not upload; the second wipes them. Both are certified."""
    async with running_site(tmp_path, "embedded") as site:
        device = site.device(recordings=2)
        device_id = (await device.provision(end_user_id="eu_1")).device_id
        async with running(device):
            kept = await site.reset(device_id, "keep")
            await site.becomes(device_id, "executed")
            await device.wait_for("unprovisioned")
            assert set(device.recordings.values()) == {1}
            second = (await device.provision(end_user_id="eu_2")).generation
            await device.wait_for_fact("online", count=2)
            await site.post(f"{device_id}/commands", {"type": "trigger_upload"}, status=201)
            assert (await site.becomes(device_id, "executed"))["result"] == {"uploaded": 2}
            assert [(each["made_in"], each["under"]) for each in details(device, "uploaded")] == [(second, second)] * 2
            wiped = await site.reset(device_id, "wipe")
            executed = await site.becomes(device_id, "executed")
            await device.wait_for("unprovisioned")
        assert executed["result"]["recordings"] == {"wiped": 2, "kept": 0}
        assert device.recordings == {}
        claims = [
            (await site.get(f"{device_id}/resets/{each['id']}/certificate"))["claims"]["recordings"]
            for each in (kept, wiped)
        ]
        assert claims == [{"wiped": 0, "kept": 2}, {"wiped": 2, "kept": 0}]
