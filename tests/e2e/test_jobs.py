"""A job over a real broker, while its gateway is killed: nothing twice, nothing lost, and the pace goes on."""

import asyncio
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.support import Site, running, running_site
from tests.support.wait import eventually

ONLINE = 3
OFFLINE = 57
PER_MINUTE = 1_200
PER_SECOND = PER_MINUTE // 60
GAP_SECONDS = 1
"""What a job earns at most while its gateway is down."""


async def _job(site: Site, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = (await site.http.get(f"/v1/jobs/{job_id}")).json()
    return found


def _waiting(job: dict[str, Any]) -> int:
    counts = job["counts"]
    waiting: int = 2 * counts["total"] - sum(counts.values())
    return waiting


def _requested(site: Site) -> list[tuple[int, int]]:
    """When each reset was requested, in milliseconds, and of which device; oldest first."""
    with closing(sqlite3.connect(site.gateway.data / "gateway.db")) as database:
        statement = "SELECT created_at, device_pk FROM commands WHERE type = 'factory_reset' ORDER BY id"
        return database.execute(statement).fetchall()


@pytest.mark.guarantee("G2", "G9", "G14")
async def test_a_job_survives_a_kill_in_the_middle(tmp_path: Path) -> None:
    """Each target gets one reset, and no turn is made up for. Devices obey, and cancel takes back the rest."""
    async with running_site(tmp_path, "mosquitto") as site:
        devices = [site.device(f"SN{number}") for number in range(ONLINE)]
        ids = [(await device.provision(end_user_id="eu_1")).device_id for device in devices]
        made = (site.http.post("/v1/devices", json={"serial_number": f"OFF{number}"}) for number in range(OFFLINE))
        ids += [each.json()["id"] for each in await asyncio.gather(*made)]
        async with running(*devices):
            for device in devices:
                await device.wait_for("online")
            asked = {
                "name": "recall",
                "action": "factory_reset",
                "targets": {"device_ids": ids},
                "pace": {"per_minute": PER_MINUTE},
            }
            answer = await site.http.post("/v1/jobs", json=asked)
            assert answer.status_code == 201, answer.text
            job_id = answer.json()["id"]

            async def begun() -> bool:
                return _waiting(await _job(site, job_id)) <= len(ids) - 10

            await eventually(begun, "ten targets had their turn")
            await site.gateway.kill()
            before = _requested(site)
            assert 10 <= len(before) < len(ids)
            await site.gateway.restart()

            async def all_had_their_turn() -> bool:
                return _waiting(await _job(site, job_id)) == 0

            await eventually(all_had_their_turn, "all targets had their turn")
            for device in devices:
                await device.wait_for("unprovisioned")

            async def executed() -> bool:
                return bool((await _job(site, job_id))["counts"]["executed"] == ONLINE)

            await eventually(executed, "the devices that are online have executed it")
        requested = _requested(site)
        assert set(Counter(device for _, device in requested).values()) == {1}
        assert len(requested) == len(ids)
        assert all(device.counts["reset_begun"] == 1 for device in devices)
        after = [at for at, _ in requested[len(before) :]]
        seconds = (after[-1] - after[0]) / 1_000
        assert len(after) <= PER_SECOND * (seconds + GAP_SECONDS) + 2
        cancelled = await site.http.post(f"/v1/jobs/{job_id}/cancel")
        assert cancelled.json()["status"] == "cancelled", cancelled.text

        async def taken_back() -> bool:
            counts = (await _job(site, job_id))["counts"]
            return bool((counts["executed"], counts["cancelled"], counts["queued"]) == (ONLINE, OFFLINE, 0))

        await eventually(taken_back, "all that was not delivered is taken back")
        await site.broker_agrees()
