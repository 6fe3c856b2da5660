"""Faults of several brokers at one registry: devices roam, a broker joins late, and one is given up."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from gateway.core.ids import Ids
from gateway.domain import brokers
from gateway.errors import ConflictError, NotFoundError
from gateway.store import Context, transact
from tests.simulation.cluster_faults import ClusterFaults
from tests.simulation.home_operators import empty
from tests.simulation.shared_registry import Line

if TYPE_CHECKING:
    from tests.simulation.broker_sites import BrokerSite

_TRIES: Final = 12
_TRIES_WITH_HOMES: Final = 60
"""Until a broker is back that devices can be moved to."""
_PAUSE_SECONDS: Final = 0.5
_NONE_ELSEWHERE: Final = ("roam",)
"""Kinds that break nothing at a broker."""


class BrokerFaults(ClusterFaults):
    """Each method is a kind of step. ``broker`` is a number."""

    async def do(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Carry out one step. With several brokers it disturbs the one that it is about."""
        if len(self._world.sites) == 1:
            await super().do(kind, facts)
            return
        facts = dict(facts)
        if "gateway" in facts:  # the same one at the end
            host = self._gateway(facts["gateway"])
            facts["gateway"] = self._world.gateways.index(host)
            sites = [host.site]
        elif "broker" in facts:
            sites = [self._site(facts["broker"])]
        else:
            sites = self._world.sites
        if kind not in _NONE_ELSEWHERE:
            self._world.mark_disturbance(sites)
        await getattr(self, kind)(**facts)
        if kind not in _NONE_ELSEWHERE:
            self._world.mark_disturbance(sites)

    def _site(self, broker: int) -> BrokerSite:
        return self._world.sites[broker % len(self._world.sites)]

    async def roam(self, *, device: int, far_after: float) -> None:
        """Have a device connect to another broker. The one that it leaves may notice later."""
        host = self._world.devices[device]
        client = getattr(host.radio, "client", None)
        if client is not None:
            self._world.log(host.serial, "goes to another broker", far_after=far_after)
            self._world.device_balancer.leave(client.broker)
            client.connection.cut("the device moved", far_after=far_after)

    async def join_broker(self, *, retained: str) -> None:
        """Start the last broker and its gateways, if it has not joined yet."""
        site = self._world.sites[-1]
        if site.is_gone:
            self._begin(site, retained)

    async def forget_broker(self, *, broker: int, back: float | None, retained: str) -> None:
        """Stop a broker and its gateways permanently, and remove it from the registry. It may join again."""
        world, site = self._world, self._site(broker)
        if sum(not each.is_gone for each in world.sites) == 1 or site.is_gone:
            return
        site.is_gone = True
        world.log("operator", f"gives {site.id} up")
        await asyncio.gather(*(host.stop() for host in site.hosts))
        site.broker.stop()
        for _ in range(_TRIES if world.homes is None else _TRIES_WITH_HOMES):
            await asyncio.sleep(_PAUSE_SECONDS)
            if self._is_empty(site) and self._is_forgotten(site):
                break
        if back is not None:
            await asyncio.sleep(back)
            self._begin(site, retained)

    def _is_empty(self, site: BrokerSite) -> bool:
        """Move its devices to a broker that is there, where devices have homes. Return whether it has none left."""
        world = self._world
        there = sorted((each for each in world.sites if not each.is_gone), key=lambda each: not each.is_served)
        return world.homes is None or empty(world, site.id, there[0].id)

    def _is_forgotten(self, site: BrokerSite) -> bool:
        """Remove it, as ``gateway cluster forget`` does. Return False while a gateway of it counts as alive."""
        world = self._world
        entropy = world.rng(f"forget {world.loop.time()}").randbytes
        context = Context(world.host.rules, clock=world.clock, entropy=entropy, ids=Ids(entropy))
        world.disk.before_commit = lambda: None
        with suppress(ConflictError, NotFoundError):
            transact(Line(world.disk), context, lambda tx: brokers.forget(tx, site.id))
            world.after_commit()
            world.gateways[0].laws.forget(site)
            site.integrator.forget()
            world.heard.forget(site.broker)
            world.log("operator", f"'gateway cluster forget {site.id}'")
            return True
        return False

    def _begin(self, site: BrokerSite, retained: str) -> None:
        site.is_gone, site.remembers = False, False
        site.broker.start(retained=retained, keep_sessions=False)
        site.table.load_entries()
        self._world.log(site.id, "joins the registry")
        for host in site.hosts:
            host.start()
        self._world.mark_disturbance([site])
