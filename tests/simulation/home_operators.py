"""What operators do with home brokers: over HTTP, and as ``gateway cells`` does in the registry."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from gateway.core.ids import Ids
from gateway.domain import cells
from gateway.errors import GatewayError
from gateway.store import Context, Tx, transact
from tests.simulation.job_operators import JobOperators
from tests.simulation.shared_registry import Line

if TYPE_CHECKING:
    from tests.simulation.device_host import DeviceHost
    from tests.simulation.world import World


class HomeOperators(JobOperators):
    """Each method is a kind of step. Brokers are numbers."""

    async def move(self, device: DeviceHost, *, to: int) -> None:
        """Move one device."""
        site_id = self._site_id(to)
        answer = await self._api.call("POST", f"/v1/cells/{site_id}/devices", {"device_ids": [device.id]})
        self._world.log("operator", f"moves {device.serial} to {site_id}", moved=len(answer["moved"]))

    async def move_all(self, *, source: int, to: int) -> None:
        """Move all devices of a broker."""
        source_id, to_id = self._site_id(source), self._site_id(to)
        answer = await self._api.call("POST", f"/v1/cells/{source_id}/move", {"to": to_id})
        self._world.log("operator", f"moves all from {source_id} to {to_id}", moved=len(answer["moved"]))

    async def drain(self, *, broker: int, draining: bool) -> None:
        """Drain a broker, or open it again."""
        drain(self._world, self._site_id(broker), draining=draining)

    def _site_id(self, number: int) -> str:
        return self._world.sites[number % len(self._world.sites)].id


def drain(world: World, site_id: str, *, draining: bool) -> None:
    """Drain a broker in the registry, or open it again."""
    if _write(world, lambda tx: cells.drain(tx, site_id, "local", draining=draining)):
        world.log("operator", f"'gateway cells drain {site_id}'", draining=draining)


def empty(world: World, site_id: str, to: str) -> bool:
    """Move all devices of a broker in the registry, and return whether it is home to none now."""
    drain(world, to, draining=False)
    if _write(world, lambda tx: cells.move_some(tx, site_id, to, "local")):
        world.log("operator", f"'gateway cells move --all-from {site_id} --to {to}'")
    row = world.row("SELECT devices FROM brokers WHERE id = ?", site_id)
    return row is None or row["devices"] == 0


def _write(world: World, change: Callable[[Tx], object]) -> bool:
    """Change the registry beside the gateways. Return False for a refusal."""
    entropy = world.rng(f"cells {world.loop.time()}").randbytes
    context = Context(world.host.rules, clock=world.clock, entropy=entropy, ids=Ids(entropy))
    world.disk.before_commit = lambda: None
    with suppress(GatewayError):
        transact(Line(world.disk), context, change)
        world.after_commit()
        return True
    return False
