"""``/metrics`` of a gateway at work: what a device went through is what the figures say."""

import re
from pathlib import Path

from tests.e2e.support import Site, running, running_site
from tests.support.wait import eventually


async def figures(site: Site) -> dict[str, float]:
    """Every sample, by its name with its labels."""
    text = (await site.http.get("/metrics")).text
    return {name: float(value) for name, value in re.findall(r"^(gateway_\S+) (\S+)$", text, re.MULTILINE)}


async def test_metrics_follow_a_device_through_its_life_cycle(tmp_path: Path) -> None:
    """Bound, heard, reset, cut off: heartbeats, the way from socket to acknowledgement, stages, access, events."""
    async with running_site(tmp_path, "mosquitto") as site:
        device = site.device()
        device_id = (await device.provision(end_user_id="eu_1")).device_id
        async with running(device):

            async def heard() -> bool:
                return bool((await figures(site))['gateway_heartbeats_total{outcome="stored"}'])

            await eventually(heard, "a heartbeat is counted")
            await site.reset(device_id)
            await site.becomes(device_id, "executed")
            await site.synced()

        async def told_of_the_end() -> dict[str, float] | None:
            now = await figures(site)  # up to a second old
            return now if now['gateway_access_changes_total{now="closed"}'] else None

        told = await eventually(told_of_the_end, "the figures are newer than the end of the session")
        assert told is not None
        assert told["gateway_ingest_seconds_count"] >= 3  # a heartbeat and two acknowledgements, at the least
        assert told["gateway_ingest_seconds_sum"] > 0
        assert told['gateway_reset_stage_seconds_count{stage="completed"}'] == 1
        assert told['gateway_access_changes_total{now="closed"}'] == 1
        assert told['gateway_access_changes_total{now="open"}'] >= 1
        assert told['gateway_events_total{type="reset.completed"}'] == 1
        assert told["gateway_broker_connections_total"] == 1
        assert told["gateway_database_bytes"] > 0
