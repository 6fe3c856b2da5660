"""The fleet team of a chaos round: it makes small jobs for the troubled devices, and changes them; and their audit."""

import asyncio
import contextlib
import random
import time

from device_sim import SimulatorError
from tests.e2e.chaos_audit import registry
from tests.e2e.chaos_operator import RESET, ChaosApi
from tests.e2e.chaos_world import SETTLE_SECONDS, ChaosWorld
from tests.simulation import job_history
from tests.support.wait import eventually

_UNKNOWN = "dev_01ARZ3NDEKTSV4RRFFQ69G5FAV"
_LONGEST_PAUSE_SECONDS = 0.25


class FleetTeam:
    """Makes a job after the other, and does to the newest what people do."""

    def __init__(self, world: ChaosWorld, api: ChaosApi) -> None:
        self._world = world
        self._api = api
        self._rng = world.rng("jobs")
        self.answered: list[str] = []

    async def run(self) -> None:
        """Work until cancelled; what is refused or not answered is let go."""
        while True:
            with contextlib.suppress(SimulatorError):
                await self._turn(self._rng)
            await asyncio.sleep(self._rng.uniform(0, _LONGEST_PAUSE_SECONDS))

    async def _turn(self, rng: random.Random) -> None:
        if self.answered and rng.random() < 0.5:
            verb = rng.choice(("pause", "resume", "resume", "cancel"))
            await self._api.call("POST", f"/v1/jobs/{self.answered[-1]}/{verb}", {})
            return
        steady = {device.binding.device_id for device in self._world.steady if device.binding}
        known = sorted({token.device_id for token in self._world.ledger.tokens} - steady)
        if not known:
            return
        body = {
            "name": f"job {len(self.answered)}",
            "action": rng.choice((RESET, RESET, {"type": "start_recording", "ttl_seconds": rng.choice((1, 300))})),
            "targets": {"device_ids": [*rng.sample(known, rng.randint(1, len(known))), _UNKNOWN]},
            "pace": {"per_minute": rng.choice((120, 600, 6_000))},
            "abort": rng.choice((None, {"failed_percent": 50, "min_done": 2})),
        }
        self.answered.append((await self._api.call("POST", "/v1/jobs", body))["id"])


async def wait_until_jobs_end(world: ChaosWorld) -> None:
    """No job has work left that does not wait for a device."""
    left: list[object] = []

    def nothing_left() -> bool:
        with registry(world) as database:
            left[:] = job_history.find_unfinished(database, int(time.time() * 1_000))
        return not left

    try:
        await eventually(nothing_left, "the jobs have ended or wait for devices", guard_seconds=SETTLE_SECONDS)
    finally:
        for each in left:
            world.log(f"has not ended: {each}")


def jobs_are_in_order(world: ChaosWorld, team: FleetTeam) -> None:
    """Each job that was answered is there, and the tables show no target that was done too late or not counted."""
    with registry(world) as database:
        assert list(job_history.check_history(database)) == []
        known = {row["id"] for row in database.execute("SELECT id FROM jobs WHERE status <> 'preparing'")}
        queued = database.execute("SELECT count(*) FROM job_targets WHERE command_id IS NOT NULL").fetchone()[0]
    assert set(team.answered) <= known
    world.log(f"{len(known)} jobs queued {queued} commands, {len(team.answered)} of the jobs were answered")
