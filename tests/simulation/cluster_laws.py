"""Laws of several gateways at one registry (invariant 10): leases, epochs, take-overs, and the order of events."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from gateway.broker.access_rules import Role
from gateway.broker.embedded.session import ClientIdentity
from gateway.errors import StoreError
from gateway.store import View, event_sql
from gateway.store.lease_sql import FLEET, of_broker
from tests.simulation.broker_session import Packet
from tests.simulation.cluster_host import LEASE_SECONDS, ClusterHost
from tests.simulation.integrator import Finding

if TYPE_CHECKING:
    from gateway.store import Row
    from tests.simulation.broker_sites import BrokerSite
    from tests.simulation.world import World

TAKEOVER_SECONDS: Final = LEASE_SECONDS + 4.0
"""The lease of a dead owner ends, another one notices, connects, looks for other gateways, and compares."""
_PAGE: Final = 100

ONE_PUBLISHER: Final = "at most one gateway publishes under an epoch"
FORMER: Final = "the broker accepts nothing of a former owner"
EPOCH: Final = "what follows a publish commits only under the epoch it began with"
ENDED: Final = "a lease is taken when it has ended or was handed over"
OWN: Final = "a lease is renewed and handed over by the gateway that holds it"
RISES: Final = "each take-over raises the epoch by one"
KEEPS: Final = "a gateway that is well keeps its lease"
HANDED: Final = "a clean stop hands the leases over"
IN_TIME: Final = "a take-over ends in time"
FLEET_ALONE: Final = "only the fleet worker gives devices their turn and ends commands by time"
EVENTS: Final = "a reader gets each event once, in order"


class ClusterLaws:
    """Judges what the gateways of one registry do. It keeps its own records of publishers and epochs."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._publishers: dict[tuple[str, int], str] = {}
        self._newest_epochs: dict[str, int] = {}
        self._missing_since: dict[str, float] = {}
        self._committed: list[int] = []
        self._read: list[int] = []
        for site in world.sites:
            site.broker.on_publish = partial(self.check_accepted, site)

    def _violate(self, law: str, detail: str) -> None:
        self._world.model.violate(10, law, detail)
        self._world.check()

    # --- at the broker ------------------------------------------------------------------------------------------------

    def check_publisher(self, site: BrokerSite, instance: str, epoch: int) -> None:
        """A gateway hands a message to its broker."""
        first = self._publishers.setdefault((site.id, epoch), instance)
        if first != instance:
            self._violate(ONE_PUBLISHER, f"{instance} publishes under epoch {epoch} of {site.id}, and {first} did")

    def check_accepted(self, site: BrokerSite, sender: ClientIdentity, packet: Packet) -> None:
        """A broker accepts a message, perhaps of a gateway."""
        if sender.role != Role.GATEWAY:
            return
        newest = self._newest_epochs.get(site.id, 0)
        if packet.epoch < newest:
            self._violate(FORMER, f"{packet.topic} of epoch {packet.epoch} after one of {newest}")
        self._newest_epochs[site.id] = packet.epoch

    def forget(self, site: BrokerSite) -> None:
        """A broker was given up: its epochs begin again."""
        self._newest_epochs.pop(site.id, None)
        self._publishers = {key: first for key, first in self._publishers.items() if key[0] != site.id}

    # --- each commit --------------------------------------------------------------------------------------------------

    def check_jobs(self, jobs: list[Any]) -> None:
        """Each write under a lease that is committed has the epoch of the lease."""
        for job in jobs:
            if job.fence is None or job.error is not None:
                continue
            if tuple(job.fence[1:]) not in self._held(job.fence.name):
                self._violate(EPOCH, f"a write under epoch {job.fence.epoch} of {job.fence.name} was committed")

    def _held(self, name: str) -> set[tuple[str, int]]:
        """Instance and epoch of this lease before and after the last commit."""
        world = self._world
        changed = world.rows("SELECT old, new FROM ledger WHERE what = 'lease' AND id = ?", name)
        told = [json.loads(row[when]) for row in changed for when in ("old", "new")]
        now = [row for row in (self._lease(name),) if row is not None]
        return {(each["instance"], each["epoch"]) for each in (*now, *told)}

    def check_commit(self, host: ClusterHost | None, rows: list[Row]) -> None:
        """Judge what a commit has changed, and who has changed it."""
        for row in rows:
            if row["what"] == "lease":
                self._check_lease(row)
            elif row["what"] == "kept" and host is not None and not _is_instance(host, json.loads(row["old"])):
                self._violate(OWN, f"{host.name} {'renews' if row['new'] else 'frees'} {row['id']} of another")
            elif row["what"] == "event":
                seq = self._world.row("SELECT seq FROM events WHERE id = ?", row["id"])
                self._committed += [] if seq is None else [seq["seq"]]
            elif host is not None and row["what"] == "handled" and not self._may_drop(host, row["new"]):
                self._violate(EPOCH, f"{host.name} drops a row of the outbox ({row['old']}) of another's broker")
            elif host is not None and _is_fleet_work(row) and not self._holds(host, FLEET):
                self._violate(FLEET_ALONE, f"{host.name} is not the fleet worker: {row['id']} became {row['new']}")

    def _lease(self, name: str) -> Row | None:
        return self._world.row("SELECT * FROM leases WHERE name = ?", name)

    def _holds(self, host: ClusterHost, name: str) -> bool:
        row = self._lease(name)
        return row is not None and host.instance is not None and row["instance"] == host.instance.membership.instance

    def _may_drop(self, host: ClusterHost, broker_pk: int) -> bool:
        """Return whether it owns this broker, or works for the fleet and the broker is left out."""
        broker = self._world.row("SELECT id, left_out_at FROM brokers WHERE pk = ?", broker_pk)
        assert broker is not None
        is_left_out = broker["left_out_at"] is not None
        return self._holds(host, of_broker(broker["id"])) or (is_left_out and self._holds(host, FLEET))

    def _check_lease(self, row: Row) -> None:
        before, after = json.loads(row["old"]), json.loads(row["new"])
        taker = next((each.name for each in self._world.gateways if _is_instance(each, after["instance"])), "?")
        self._world.log("registry", f"{taker} takes the lease {row['id']}", epoch=after["epoch"])
        if after["epoch"] != before["epoch"] + 1:
            self._violate(RISES, f"{row['id']}: {before['epoch']} → {after['epoch']}")
        if before["instance"] == after["instance"]:
            return
        if before["until"] > self._world.device_clock():
            self._violate(ENDED, f"{row['id']} is taken {before['until'] - self._world.device_clock()} ms too early")
        host = next((each for each in self._world.gateways if _is_instance(each, before["instance"])), None)
        if before["until"] and host is not None and host.is_well and self._well_seconds(host) > LEASE_SECONDS:
            self._violate(KEEPS, f"{host.name} has lost {row['id']}")

    def _well_seconds(self, host: ClusterHost) -> float:
        return self._world.loop.time() - max(host.troubled_at, host.site.fault_at)

    # --- take-overs ---------------------------------------------------------------------------------------------------

    def check_handed_over(self, instance: str) -> None:
        """A gateway has stopped in order."""
        row = self._world.row("SELECT name FROM leases WHERE instance = ? AND until <> 0", instance)
        if row is not None:
            self._violate(HANDED, f"{row['name']} is held by a gateway that has stopped")

    def check_owners(self) -> None:
        """Whenever a gateway is well for long enough, each lease is held and each broker is served."""
        world = self._world
        for site in world.sites:
            self._check_owner(site.id, [site], is_served=site.is_served)
        is_served = any(host.is_fleet_worker for host in world.gateways)
        self._check_owner("the fleet", world.sites, is_served=is_served)

    def _check_owner(self, name: str, sites: Sequence[BrokerSite], *, is_served: bool) -> None:
        if is_served:
            self._missing_since.pop(name, None)
            return
        now = self._world.loop.time()
        since = self._missing_since.setdefault(name, now)
        waited = now - max(since, *(site.fault_at for site in sites))
        if waited > TAKEOVER_SECONDS and max(self._longest_well(site) for site in sites) > TAKEOVER_SECONDS:
            self._violate(IN_TIME, f"{name} has no owner for {waited:.1f} s")

    def away_seconds(self, site: BrokerSite) -> float:
        """For how long the broker was not served, as far as that was looked at."""
        since = self._missing_since.get(site.id)
        return 0.0 if since is None else self._world.loop.time() - since

    def _longest_well(self, site: BrokerSite) -> float:
        """For how long a gateway has been well, in seconds; 0 where one cannot reach the broker and may own it."""
        world = self._world
        is_broken = world.disk.full or world.disk.unreadable or not site.broker.up
        if is_broken or any(host.is_away_from_broker for host in site.hosts):
            world.mark_disturbance([site])
            return 0.0
        return max((self._well_seconds(host) for host in site.hosts if host.is_well), default=0.0)

    # --- events -------------------------------------------------------------------------------------------------------

    async def read_events(self, host: ClusterHost) -> None:
        """Read on from the newest number that was seen, as webhooks, streams and publishers do, by this gateway."""
        instance = host.instance
        if instance is None or not host.is_well:
            return
        newest = max(self._read, default=0)
        try:
            page = await instance.store.read(lambda view: event_sql.after(view, newest, _PAGE))
        except StoreError:
            return
        self._read += [event.seq for event in page if event.seq > newest]

    def check_events(self) -> Iterator[Finding]:
        """When all has come to rest, the reader has got all events in the order of their commits."""
        rest = max(self._read, default=0)
        self._read += [event.seq for event in event_sql.after(View(self._world.disk), rest, 1 << 30)]
        wanted = [seq for seq in self._committed if seq in set(self._read)]
        missed = sorted(set(self._committed) - set(self._read))
        if missed:
            yield 10, EVENTS, f"number {missed[0]} was committed after a later one, and never read"
        if wanted != sorted(wanted):
            yield 10, EVENTS, "the order of the commits is another one"


def _is_instance(host: ClusterHost, instance: str) -> bool:
    return host.instance is not None and host.instance.membership.instance == instance


def _is_fleet_work(row: Row) -> bool:
    if row["what"] == "target":
        outcome, _, command = row["new"].partition(" ")
        return bool(outcome == "queued" and command and row["old"].partition(" ")[0] == "waiting")
    return bool(row["what"] == "command" and row["new"] == "expired")
