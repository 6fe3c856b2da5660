"""One run: the gateway, its broker, its devices and its operators, put together under one clock from one plan."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
from collections.abc import Iterable
from functools import partial
from typing import Any, cast

from device_sim.actions import Publish, TokenRefreshed, Upload
from gateway.core.ids import Ids
from gateway.domain import epoch, grants
from gateway.domain.messages import Message
from gateway.store import Context, Row, View, key_sql, token_sql, transact
from gateway.store.transaction import rollback
from tests.simulation import certificate_laws
from tests.simulation.broker import Broker
from tests.simulation.broker_session import Packet
from tests.simulation.broker_sites import BrokerSite, DeviceBalancer
from tests.simulation.cluster_host import ClusterHost
from tests.simulation.commit_check import find_missing
from tests.simulation.device_host import DeviceHost, Kind, reported_status
from tests.simulation.disk import drain_ledger, new_disk
from tests.simulation.first_start import first_start
from tests.simulation.gateway_host import GatewayHost
from tests.simulation.heard_devices import HeardDevices
from tests.simulation.home_laws import HomeLaws
from tests.simulation.hosts import answering, open_hosts
from tests.simulation.integrator import Integrator
from tests.simulation.job_laws import JobLaws
from tests.simulation.model_state import OPEN, RESET, ModelState
from tests.simulation.network import Environment, make_latency
from tests.simulation.plan import Plan
from tests.simulation.presence_laws import check_offline
from tests.simulation.recording_laws import RecordingLaws
from tests.simulation.registry_reads import RegistryReads, shown_facts
from tests.simulation.virtual_api import VirtualApi

NOON = 1_794_312_000_000
"""2026-11-10T12:00:00Z in milliseconds since the epoch: when every run begins."""


class World(RegistryReads):
    """Everything there is in a run. ``log`` collects its story."""

    epoch = 0

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.loop = asyncio.get_running_loop()
        self.model = ModelState()
        self.recordings = RecordingLaws(self.model)
        self.story: list[tuple[float, str, str, dict[str, Any]]] = []
        self.clock_ahead_ms = 0
        self.bound_at: dict[str, float] = {}
        self.ended = asyncio.Event()
        self.published: dict[str, list[bytes]] = {}
        self.tokens: dict[str, str] = {}
        configuration = plan.configuration
        self.latency = make_latency(self.rng("latency"), 0.001, configuration.latency)
        self.heard = HeardDevices()
        self.sites = [BrokerSite(number, self._broker(number)) for number in range(configuration.brokers)]
        self.broker = self.sites[0].broker
        self.device_balancer = DeviceBalancer(self.sites, self.rng("device balancer"), homes=configuration.homes)
        super().__init__(new_disk())
        self.backup: sqlite3.Connection | None = None
        self.gateways: list[ClusterHost] = []
        self.balancer = self.rng("load balancer")
        self.sites[-1].is_gone = configuration.joins_late
        self.sites[-1].broker.up = not configuration.joins_late
        self.hosts = open_hosts(self)
        self.cluster = self.gateways[0].laws if self.gateways else None
        self.homes = HomeLaws(self) if configuration.homes else None
        self.known_keys: set[str] = set()
        """The signing keys of this registry, and of those that a restore has replaced."""
        first = first_start(self)
        self.project_id, self.key, self.foreign_device_id = first.project_id, first.key, first.foreign_device_id
        self.job_key, self.shelf_ids, self.jobs = first.job_key, first.shelf_ids, JobLaws(first.job_key_id)
        self.altered_commands: set[str] = set()
        """Commands whose params the broker has changed: their device refuses them, and that is right."""
        self.restored_commands: set[str] = set()
        """Commands, but no resets, that a restore found open: a device may have passed them by."""
        for site in self.sites:
            site.integrator = Integrator(site.broker, self.disk, site.id)
            site.broker.on_message = site.integrator.receive
        self.api = VirtualApi(partial(answering, self), self.key, self.latency)
        self.devices = [self._device(number, cast("Kind", kind)) for number, kind in enumerate(configuration.kinds)]

    @property
    def host(self) -> GatewayHost:
        """The gateway; of several the one that serves the broker."""
        return next((each for each in self.gateways if each.owns), self.hosts[0])

    def rng(self, stream: str) -> random.Random:
        """A stream of chance that is this run's alone."""
        return random.Random(f"{self.plan.seed} {stream}")  # noqa: S311 - reproducible on purpose

    def clock(self) -> int:
        """The gateway's idea of the time, in milliseconds since the epoch."""
        return NOON + int(self.loop.time() * 1_000) + self.clock_ahead_ms

    def device_clock(self) -> int:
        """What devices think: they ask a better clock."""
        return NOON + int(self.loop.time() * 1_000)

    def _broker(self, number: int) -> Broker:
        broker, configuration = Broker(self.rng(f"broker {number or ''}".rstrip()), self.log), self.plan.configuration
        broker.version_5 = configuration.version_5
        broker.wildcard_retained = configuration.wildcard_retained
        broker.reorder, broker.duplicate = configuration.reorder, configuration.duplicate
        broker.publishes_will_on_cut = configuration.embedded
        broker.delays_pubacks = configuration.embedded
        broker.heard = self.heard
        broker.commit_count, broker.on_puback = self.commit_count, self.on_puback
        return broker

    def _device(self, number: int, kind: Kind) -> DeviceHost:
        return DeviceHost(
            f"SN-{number}",
            kind,
            Environment(self.rng(f"device {number}"), self.device_clock, self.latency, self.log),
            broker=self.device_balancer.choose,
            api=self.api,
            observer=self,
        )

    # --- the story ----------------------------------------------------------------------------------------------------

    def log(self, who: str, what: str, **details: Any) -> None:
        """Add a line to the story."""
        self.story.append((self.loop.time(), who, what, details))

    def mark_disturbance(self, sites: Iterable[BrokerSite] = ()) -> None:
        """Something is broken, there or everywhere: promises that name seconds count from when it is mended."""
        for site in sites or self.sites:
            site.mark_disturbance(self.loop.time())

    def check(self) -> None:
        """End the run if an invariant does not hold."""
        if self.model.violations:
            self.ended.set()

    # --- what the gateway does, as seen from outside ------------------------------------------------------------------

    def after_commit(self, by: ClusterHost | None = None) -> None:
        """A transaction of the gateway was committed; of several, ``by`` this one."""
        rows = drain_ledger(self.disk)
        if self.cluster is not None:
            self.cluster.check_commit(by, rows)
        if self.homes is not None:
            self.homes.check_commit(rows)
        self.model.has_one_writer = not self.host.watching  # then two processes mint them
        self.model.check_commit(self.disk, rows, self.loop.time())
        for finding in (
            *certificate_laws.check_commit(self.disk, rows),
            *self.jobs.check_commit(
                self.disk, rows, self.loop.time(), self.clock_ahead_ms + (0 if by is None else by.ahead_ms)
            ),
        ):
            self.model.violate(*finding)
        for row in rows:
            if row["what"] == "event":
                self.log("registry", row["old"], **shown_facts(row["new"]))
                if row["old"] == "device.bound":
                    self.bound_at[json.loads(row["new"])["device_id"]] = self.loop.time()
                if row["old"] == "device.offline":
                    check_offline(self, json.loads(row["new"]))
        self.check()

    def commit_count(self) -> int:
        """How many commits there were."""
        return self.model.commits

    def on_publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        """The gateway hands a message to the broker: a command must be one that is committed (invariant 3)."""
        if "/commands/" not in topic or not retain:
            return
        self.log("gateway", "publishes" if payload else "clears", topic=topic, command=_id_in(payload))
        if payload:
            self.published.setdefault(topic, []).append(payload)
            row = None if self.disk.in_transaction else self.command(_id_in(payload))
            if row is None or row["grant_token"].encode() not in payload:
                self.model.violate(3, "nothing is published that was not committed", f"{topic}: {_id_in(payload)}")
        self.check()

    def on_acknowledge(self, message: Message, arrived_at_commit: int) -> None:
        """The gateway acknowledges a message to the broker: what it says must be committed (invariant 4)."""
        missing = find_missing(self.disk, self.model, message, arrived_at_commit)
        if missing is not None:
            self.model.violate(4, "acknowledged messages are committed", missing)
        self.check()

    def on_puback(self, packet: Packet, arrived_at_commit: int) -> None:
        """A device gets the PUBACK of the embedded broker: what it said must be committed (invariant 4)."""
        if not self.host.embedded:
            return
        missing = find_missing(self.disk, self.model, Message(packet.topic, packet.payload), arrived_at_commit)
        if missing is not None:
            self.model.violate(4, "a message is committed before the device's PUBACK", missing)
        self.check()

    # --- what devices do ----------------------------------------------------------------------------------------------

    def on_device_publish(self, device: DeviceHost, what: Publish) -> None:
        """A device sends something."""
        self._check_refusal(device, what)
        self.recordings.check_publish(device, what)
        reported = reported_status(what)
        if reported is not None:
            self.model.reported[reported[0]].add(reported[1])
            if what.kind == "ack":
                self.log(device.serial, f"says {reported[1]}", command=reported[0])

    def _check_refusal(self, device: DeviceHost, what: Publish) -> None:
        """What the gateway signed for this binding is not taken for a forgery."""
        binding = device.binding
        if what.status != "failed" or binding is None:
            return
        body = json.loads(what.payload)
        row, code = self.command(str(what.command_id)), body["error"]["code"]
        if row is None or row["id"] in self.altered_commands or row["binding_generation"] != binding.generation:
            return
        if code == "grant_invalid" and self._is_expected_refusal(row, body):
            return
        is_wrongly_stale = (
            code == "stale_sequence" and row["status"] in OPEN and row["id"] not in self.restored_commands
        )
        if code == "grant_invalid" or is_wrongly_stale:
            self.model.violate(
                1, "commands signed by the gateway are obeyed", f"{device.serial} refuses {what.command_id}"
            )
            self.check()

    def _is_expected_refusal(self, row: Row, body: dict[str, Any]) -> bool:
        """Return whether a device is right to refuse a grant: this command is signed with another key, or will be.

        It refused an earlier copy. Or the registry was restored, and does not know yet which key the device has.
        """
        named, signer = body.get("result") or {}, grants.key_id(row["grant_token"])
        is_earlier_copy = named.get("grant_kid") == signer and named.get("refused_kid") not in (None, signer)
        is_unknown_yet = bool(self.model.tokens_before) and named.get("grant_kid") not in (None, signer)
        return is_earlier_copy or is_unknown_yet

    def on_reset_begun(self, device: DeviceHost, command_id: str) -> None:
        """A device is about to be wiped."""
        binding = device.binding
        self.log(device.serial, "begins its reset", command=command_id)
        self.recordings.record_reset(device, command_id)
        if binding is None:
            self.model.violate(2, "only a bound device is wiped", device.serial)
            return
        row = self.command(command_id)
        if command_id in self.model.lost_commands:
            self.model.check_lost_command(device.serial, command_id, binding.device_token)
            self.check()
            return
        if row is not None:
            self.model.record_execution(device.id, row, device.accepted_params.get(command_id))
        self.model.record_wipe(binding.device_id, row, command_id, binding.device_token, binding.generation)
        self.check()

    def on_recorded(self, device: DeviceHost, stored: dict[str, int]) -> None:
        """A device writes down which recordings it has."""
        self.recordings.record_write(device, stored)

    def on_upload(self, device: DeviceHost, upload: Upload) -> None:
        """A device uploads a recording."""
        self.log(device.serial, "uploads", recording=upload.recording_id, made_in=upload.made_in)
        self.recordings.check_upload(device, upload)
        self.check()

    def on_command_done(self, device: DeviceHost, command_id: str) -> None:
        """A device has done what a command says."""
        self.log(device.serial, "has done", command=command_id)
        if command_id in self.model.lost_commands and device.binding is not None:
            self.model.check_lost_command(device.serial, command_id, device.binding.device_token)
        row = self.command(command_id)
        if row is not None:
            self.model.record_execution(device.id, row, device.accepted_params.get(command_id))
        self.model.record_effect(device.id, command_id)
        self.check()

    def on_token_refreshed(self, device: DeviceHost, answer: TokenRefreshed, began: float) -> None:
        """A device that its broker refuses was answered another token."""
        self.log(device.serial, "has its token refreshed", lost=False)
        self.record_token(answer.device_token, device)
        if self.homes is not None:
            self.homes.check_told(self.pk(device), answer.mqtt.host, began)

    def record_token(self, token: str, device: DeviceHost) -> None:
        """Record a device token that was answered, and whose row it is in the broker's table."""
        self.tokens[token] = device.id
        row = token_sql.by_secret(View(self.disk), token)
        if row is not None:
            for site in self.sites:
                site.table.token_of[row.broker_entry] = row.id
            self.recordings.record_token(token, row.generation)

    # --- the registry's copies ----------------------------------------------------------------------------------------

    def take_backup(self) -> None:
        """Copy what is committed."""
        self.backup = sqlite3.connect(":memory:")
        self.disk.backup(self.backup)

    def restore(self) -> None:
        """Put the copy in the place of the registry, as ``gateway restore`` does; no gateway runs."""
        if self.backup is None:
            return
        entropy = self.rng(f"restore {self.loop.time()}").randbytes
        rollback(self.disk)
        self.disk.before_commit = lambda: None
        self.backup.backup(self.disk)
        context = Context(self.host.rules, clock=self.clock, entropy=entropy, ids=Ids(entropy))
        transact(self.disk, context, lambda tx: epoch.begin(tx, epoch.RESTORED))
        drain_ledger(self.disk)  # no change of the gateway's
        base = int(key_sql.meta(View(self.disk), key_sql.EPOCH_BASE) or 0)
        self.model.restore_copy(self.disk, base, set(self.tokens))
        restored_commands = self.rows(
            "SELECT id FROM commands WHERE status IN ('pending', 'delivered') AND type <> ?", RESET
        )
        self.restored_commands |= {row["id"] for row in restored_commands}
        known = {row["broker_entry"]: row["id"] for row in self.rows("SELECT id, broker_entry FROM tokens")}
        for site in self.sites:
            site.table.token_of = known
        for device in self.devices:  # its report of a wipe is lost, and it sends none again
            device.wiped_for_command = None


def _id_in(payload: bytes) -> str:
    return str(json.loads(payload).get("id", "")) if payload else ""
