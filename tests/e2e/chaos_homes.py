"""Home brokers in a chaos round: someone moves devices and drains brokers; and the audit of who serves which device."""

import asyncio
import contextlib
import random

from device_sim import SimulatorError
from tests.e2e.chaos_audit import registry
from tests.e2e.chaos_operator import ChaosApi
from tests.e2e.chaos_world import SETTLE_SECONDS, Cell
from tests.e2e.cluster_world import ClusterWorld, broker_id
from tests.support.wait import eventually

_LONGEST_PAUSE_SECONDS = 0.8


class CellTeam:
    """Moves devices, and drains brokers, while faults happen."""

    def __init__(self, world: ClusterWorld, api: ChaosApi) -> None:
        self._world = world
        self._api = api
        self._rng = world.rng("cells")
        self.moved = 0

    async def run(self) -> None:
        """Work until cancelled; what is refused or not answered is let go."""
        while self._world.scale.homes:
            with contextlib.suppress(SimulatorError):
                await self._turn(self._rng)
            await asyncio.sleep(self._rng.uniform(0, _LONGEST_PAUSE_SECONDS))

    async def _turn(self, rng: random.Random) -> None:
        brokers = [broker_id(number) for number in range(len(self._world.cells))]
        known = sorted({token.device_id for token in self._world.ledger.tokens})
        match rng.choices(("some", "all", "drain", "open"), weights=(6, 1, 1, 3))[0]:
            case "some" if known:
                chosen = rng.sample(known, min(len(known), rng.randint(1, 4)))
                await self._move(f"/v1/cells/{rng.choice(brokers)}/devices", {"device_ids": chosen})
            case "all":
                source, to = rng.sample(brokers, 2)
                await self._move(f"/v1/cells/{source}/move", {"to": to})
            case verb:
                await self._api.call("POST", f"/v1/cells/{rng.choice(brokers)}/drain", {"draining": verb == "drain"})

    async def _move(self, path: str, body: dict[str, object]) -> None:
        self.moved += len((await self._api.call("POST", path, body))["moved"])


async def wait_until_homes_alone(world: ClusterWorld) -> None:
    """Each broker knows the devices whose home it is, and no others."""
    wrong: list[str] = []

    def alone() -> bool:
        wrong[:] = [each for number, cell in enumerate(world.cells) for each in _wrong_at(world, cell, number)]
        return not wrong

    try:
        if world.scale.homes:
            await eventually(alone, "the home broker alone knows a device", guard_seconds=SETTLE_SECONDS)
    finally:
        for each in wrong:
            world.log(each)


def _wrong_at(world: ClusterWorld, cell: Cell, number: int) -> list[str]:
    with registry(world) as database:
        rows = database.execute(
            """SELECT d.id FROM devices d LEFT JOIN homes h ON h.device_pk = d.pk
                LEFT JOIN brokers b ON b.pk = h.broker_pk
                WHERE d.deleted_at IS NULL AND (b.id IS NULL OR b.id = ?)
                AND EXISTS (SELECT 1 FROM tokens t WHERE t.device_pk = d.pk AND t.state <> 'revoked')""",
            (broker_id(number),),
        ).fetchall()
    wanted = {row["id"] for row in rows}
    lines = cell.broker.password_file.read_text().splitlines()
    known = {name for line in lines if (name := line.partition(":")[0]).startswith("dev_")}
    return [f"{broker_id(number)} knows {each}" for each in sorted(known - wanted)] + [
        f"{broker_id(number)} does not know {each}" for each in sorted(wanted - known)
    ]
