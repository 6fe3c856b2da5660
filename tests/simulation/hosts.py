"""The machines of a run: one gateway alone, or several that share a registry and a load balancer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from gateway.store import outbox_sql
from tests.simulation.cluster_host import ClusterHost
from tests.simulation.cluster_laws import ClusterLaws
from tests.simulation.gateway_host import RULES, GatewayHost, GatewayInstance
from tests.simulation.job_plans import JOB_KINDS
from tests.simulation.network import Environment
from tests.simulation.shared_registry import Line, share

if TYPE_CHECKING:
    from tests.simulation.broker_sites import BrokerSite
    from tests.simulation.world import World

_MISSED: Final = 0.3
"""How often the load balancer has not noticed yet that a gateway stands still."""


def open_hosts(world: World) -> list[GatewayHost]:
    """Put them together as the plan says; several are ``world.gateways``, too."""
    configuration = world.plan.configuration
    if configuration.gateways > 1:
        share(world.disk, world.device_clock)
        laws = ClusterLaws(world)
        for number in range(configuration.gateways):
            world.gateways.append(_one_of_several(world, number, laws, world.sites[number % len(world.sites)]))
        hosts: list[GatewayHost] = [*world.gateways]
    else:
        (site,) = world.sites
        environment = Environment(world.rng("gateway"), world.clock, world.latency, world.log)
        hosts = [
            GatewayHost(
                world.disk,
                world.broker,
                environment,
                slow=configuration.slow,
                after_commit=world.after_commit,
                observer=world,
            )
        ]
        hosts[0].table = site.table
    for host in hosts:
        host.embedded, host.watching = configuration.embedded, configuration.watching
        host.delivering = configuration.delivering
        mirrored = (outbox_sql.STATE,) if configuration.mirrored else ()
        host.rules = replace(RULES, mirrored=mirrored, assigns_homes=configuration.homes)
        host.working = any(step.kind in JOB_KINDS for step in world.plan.steps)
    return hosts


def _one_of_several(world: World, number: int, laws: ClusterLaws, site: BrokerSite) -> ClusterHost:
    host = ClusterHost(
        world.disk,
        site.broker,
        Environment(world.rng(f"gateway {number}"), lambda: world.clock() + host.ahead_ms, world.latency, world.log),
        slow=world.plan.configuration.slow,
        after_commit=lambda: world.after_commit(host),
        observer=world,
    )
    host.name, host.line, host.laws = f"gateway {number}", Line(world.disk), laws
    host.site, host.table = site, site.table
    site.hosts.append(host)
    return host


def answering(world: World) -> GatewayInstance | None:
    """The gateway that gets the next request; of several, one that the load balancer takes for healthy."""
    if not world.gateways:
        return world.hosts[0].instance
    chance = world.balancer
    serving = [host.instance for host in world.gateways if host.instance is not None and host.instance.is_serving]
    awake = [each for each in serving if not each.process.is_paused or chance.random() < _MISSED]
    return chance.choice(awake or serving) if serving else None


__all__ = ["answering", "open_hosts"]
