"""Laws of several brokers at one registry: a bind waits for those that are there, and nothing for one that is away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from device_sim.wire import mqtt_password
from gateway.store import View, token_sql
from tests.simulation.cluster_host import LEASE_SECONDS
from tests.simulation.home_laws import home_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from device_sim.binding import Binding
    from tests.simulation.broker import Broker
    from tests.simulation.broker_sites import BrokerSite
    from tests.simulation.integrator import Finding
    from tests.simulation.world import World

_STEADY_SECONDS: Final = 5.0
_AWAY_SECONDS: Final = LEASE_SECONDS + 2.0
"""By then its lease has ended, or its owner has noticed the loss of the connection."""

WAITS: Final = "a bind is answered when each broker that is there knows the token"
ENDS: Final = "a status ends with its binding"
GOES_ON: Final = "nothing waits for a broker that is away"


def awaited_brokers(world: World, began: float, home: str | None = None) -> list[Broker]:
    """Return the brokers that a caller is promised something of, who began to wait then (virtual seconds).

    Of several these are the ones that have been served all the while, or of these the home alone. A single one is
    waited for in any case.
    """
    if len(world.sites) == 1:
        return [world.broker]
    return [site.broker for site in world.sites if home in (None, site.id) and _is_steady(site, began)]


def _is_steady(site: BrokerSite, since: float) -> bool:
    return site.is_served and site.disturbed_at < since


async def check_bind(world: World, device_id: str, binding: Binding, began: float, *, is_synced: bool) -> None:
    """A bind was answered. ``is_synced`` is whether each broker knows the token, as the answer says."""
    if len(world.sites) == 1 or world.cluster is None:
        return
    if is_synced and _is_newest(world, binding.device_token):
        password = mqtt_password(binding.device_token)
        home = home_of(world, device_id)
        for broker in awaited_brokers(world, began, home):
            if broker.admit is not None and await broker.admit(device_id, device_id, password) is None:
                world.model.violate(5, WAITS, device_id)
    away = [site for site in world.sites if not site.is_served and world.cluster.away_seconds(site) > _AWAY_SECONDS]
    steady = [site for site in world.sites if _is_steady(site, began - _STEADY_SECONDS)]
    is_calm = all(host.troubled_at < began - _STEADY_SECONDS for host in world.gateways)
    if not is_synced and is_calm and steady and len(away) + len(steady) == len(world.sites):
        world.model.violate(11, GOES_ON, f"the bind of {device_id} took {world.loop.time() - began:.1f} s")
    world.check()


def find_wrong_statuses(world: World) -> Iterator[Finding]:
    """At each broker that has kept what was published there, a device whose token opens nothing is not online."""
    for site in world.sites if len(world.sites) > 1 else ():
        for device in world.devices if site.is_served and site.remembers else ():
            held = site.broker.retained.get(f"devices/{device.id}/status", b"")
            if b"online" in held and not token_sql.live(View(world.disk), world.pk(device)):
                yield 3, ENDS, f"{device.serial} is online at {site.id}, and its token opens nothing"


def _is_newest(world: World, token: str) -> bool:
    """Return whether nothing has ended or replaced this token since."""
    row = token_sql.by_secret(View(world.disk), token)
    return row is not None and row.state == "active" and len(token_sql.live(View(world.disk), row.device_pk)) == 1
