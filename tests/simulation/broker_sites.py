"""The brokers of a run, each with what goes with it, and the load balancer that devices reach them through."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from tests.simulation.broker_access import PasswordTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from device_sim.binding import Binding
    from tests.simulation.broker import Broker
    from tests.simulation.cluster_host import ClusterHost
    from tests.simulation.integrator import Integrator

FIRST_ID: Final = "default"
_MISSED: Final = 0.1
"""How often the load balancer has not noticed yet that a broker is down."""


class BrokerSite:
    """One broker. ``hosts`` are the gateways that are configured for it where several share a registry.

    ``disturbed_at`` is when something was last wrong there, in virtual seconds, and ``fault_at`` the same without the
    time until another gateway has taken over. A broker that ``is_gone`` has not joined yet, or was given up. One that
    ``remembers`` has not come back with messages of an earlier time.
    """

    integrator: Integrator

    def __init__(self, number: int, broker: Broker) -> None:
        self.id = FIRST_ID if number == 0 else f"brk_{number}"
        self.broker = broker
        self.table = PasswordTable(broker)
        self.hosts: list[ClusterHost] = []
        self.disturbed_at = self.fault_at = 0.0
        self.is_gone = False
        self.remembers = True

    @property
    def is_served(self) -> bool:
        """Return whether a gateway that is well owns the broker, and has compared it."""
        if self.is_gone or not self.broker.up:
            return False
        return any(host.owns and host.is_well and host.has_compared for host in self.hosts)

    def mark_disturbance(self, now: float) -> None:
        """Note that something is broken there."""
        self.disturbed_at = self.fault_at = now


class DeviceBalancer:
    """Chooses the broker that a device connects to: any, or with homes the one that the binding names."""

    def __init__(self, sites: Sequence[BrokerSite], rng: random.Random, *, homes: bool) -> None:
        self._sites, self._rng, self._homes = sites, rng, homes
        self._left: Broker | None = None

    def leave(self, broker: Broker) -> None:
        """Send the next client to another broker."""
        self._left = broker

    def choose(self, binding: Binding) -> Broker:
        """Return the broker for a connect."""
        if len(self._sites) == 1:
            return self._sites[0].broker
        if self._homes:
            # The operator has the name of a broker that was given up lead to another one.
            sites = sorted(self._sites, key=lambda site: site.id != binding.mqtt.host)
            return next(site.broker for site in sites if not site.is_gone)
        left, self._left = self._left, None
        known = [site.broker for site in self._sites if not site.is_gone]
        there = [broker for broker in known if broker.up or self._rng.random() < _MISSED] or known
        return self._rng.choice([broker for broker in there if broker is not left] or there)
