"""What goes wrong in a cluster: the faults of one gateway and its broker, of a lease, and of the database pair."""

import asyncio
import contextlib
import random

from tests.e2e.chaos_faults import FORGETFUL, WEIGHTS, Fault, FaultInjector, frozen, spread
from tests.e2e.cluster_world import LEASE_SECONDS, ClusterWorld
from tests.e2e.gateway_process import GatewayProcess
from tests.support.postgres_pair import PostgresPair
from tests.support.small_disk import full, may_mount
from tests.support.wait import eventually

LOAD_SECONDS = 2.0
REVIVE_SECONDS = 60.0
_AWAY = "PostgreSQL server"


class ClusterFaultInjector(FaultInjector):
    """Does it. What concerns the database pair follows each other."""

    def __init__(self, world: ClusterWorld) -> None:
        super().__init__(world)
        self._cluster = world

    async def restart(self, gateway: GatewayProcess) -> None:
        """Start it until it runs, as a service manager does: it ends when its database is away."""

        async def runs() -> bool:
            try:
                await gateway.restart()
            except AssertionError:
                self._cluster.log_server()
                assert _AWAY in gateway.err, gateway.err
                self._world.logs.append(gateway.err)
            return gateway.runs

        await eventually(runs, f"{gateway.name} runs again", guard_seconds=REVIVE_SECONDS)

    async def freeze_gateway(self, fault: Fault) -> None:
        """SIGSTOP for longer than its lease: another one takes over, then this one wakes up."""
        async with self.alone_with(self.gateway_of(fault)) as gateway, frozen(gateway.pid):
            await asyncio.sleep(LEASE_SECONDS + 1 + fault.seconds)

    async def kill_primary(self, fault: Fault) -> None:
        """`kill -9`; the standby is promoted, and the other server becomes its standby."""
        async with self.alone_with(self._cluster.pair) as pair:
            await asyncio.to_thread(pair.kill_primary)
            await asyncio.sleep(fault.seconds)
            await asyncio.to_thread(pair.promote)
            await pair.rebuild()

    async def fill_disk(self, fault: Fault) -> None:
        """The disk of the primary is full for a while. A server that ended by that is started again."""
        if not may_mount():
            await self.kill_primary(fault)
            return
        async with self.alone_with(self._cluster.pair) as pair:
            with full(pair.primary.disk):
                await asyncio.sleep(1 + fault.seconds)
            await self._comes_back(pair)

    async def kill_standby(self, fault: Fault) -> None:
        """`kill -9`: commits wait until the standby is back."""
        async with self.alone_with(self._cluster.pair) as pair:
            await asyncio.to_thread(pair.standby.kill)
            await asyncio.sleep(fault.seconds)
            await pair.rebuild()

    async def cut_replication(self, fault: Fault) -> None:
        """The line between primary and standby is cut: commits wait until it is back."""
        line = self._cluster.replication

        def waits() -> bool:
            line.closed = True  # another fault of this line may just have ended
            line.cut()
            return pair.commits_wait()

        async with self.alone_with(self._cluster.pair) as pair:
            await eventually(waits, "a commit waits for the standby")
            await asyncio.sleep(fault.seconds)
            line.closed = False
            await pair.replicates()

    async def _comes_back(self, pair: PostgresPair) -> None:
        """Wait until the primary takes statements again: it ends by itself, or recovers by itself."""

        def up() -> bool:
            if not pair.primary.runs:
                self._world.log("the primary had ended by its full disk")
                with contextlib.suppress(Exception):
                    pair.primary.start()
            return pair.primary.is_up

        await eventually(up, "the primary takes statements", guard_seconds=REVIVE_SECONDS)
        await pair.replicates()


CLUSTER_FAULTS = (
    *("kill_primary", "freeze_gateway", "fill_disk", "kill_gateway", "kill_standby"),
    *("cut_replication", "kill_primary", "kill_starting_gateway", "stop_gateway"),
)
"""Each comes in its turn."""
OTHER_WEIGHTS = {name: weight for name, weight in WEIGHTS.items() if name not in CLUSTER_FAULTS}
"""What else happens in a round is drawn from these: faults of the broker, of lines and of devices."""
OTHERS = 3


def drawn_for(rng: random.Random, number: int) -> list[Fault]:
    """The faults of a round; in half of the rounds the broker keeps what it has confirmed."""
    names = rng.choices(list(OTHER_WEIGHTS), weights=tuple(OTHER_WEIGHTS.values()), k=OTHERS)
    if rng.random() < 0.5:
        names = ["cut" if name in FORGETFUL else name for name in names]
    names.insert(rng.randrange(OTHERS), CLUSTER_FAULTS[number % len(CLUSTER_FAULTS)])
    return spread(rng, names, LOAD_SECONDS)
