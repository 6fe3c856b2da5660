"""Metrics for Prometheus (contract, section 2: ``/metrics``).

What happened is counted when it is committed. What is (how many wait, for how long) is read at a scrape. Labels are our
own words or closed lists, never a device, a project or a key, so their number is bounded.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from gateway import __version__
from gateway.models.events import EventType
from gateway.models.jobs import ENDS
from gateway.models.sign_ins import SIGN_INS
from gateway.store import measurements
from gateway.store.event_budget_sql import SUPPRESSIBLE
from gateway.store.measurements import Measure

MEDIA_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS"})
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
RESET_BUCKETS: Final = (
    0.1,
    0.5,
    1,
    5,
    15,
    _MINUTE,
    5 * _MINUTE,
    15 * _MINUTE,
    _HOUR,
    6 * _HOUR,
    _DAY,
    7 * _DAY,
    30 * _DAY,
)
"""Seconds. A device that is online takes less than one, one in a drawer a month."""
COMMIT_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
REQUEST_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """Counts and times what happens. Each gateway has one, so that two in one process do not mix."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        Info("gateway", "Which gateway this is.", registry=registry).info({"version": __version__})
        self._heartbeats = Counter(
            "gateway_heartbeats",
            "Heartbeats that were taken, by what was done with them; refused ones are in gateway_refusals_total.",
            ["outcome"],
            registry=registry,
        )
        self._refusals = Counter(
            "gateway_refusals",
            "Messages that were refused, by the code that devices are told.",
            ["code"],
            registry=registry,
        )
        self._access = Counter(
            "gateway_access_changes",
            "Devices whose right to connect was brought in step at the broker; closed: a live session was cut by that.",
            ["now"],
            registry=registry,
        )
        self._events = Counter(
            "gateway_events", "Events written to the audit trail, by type.", ["type"], registry=registry
        )
        self._suppressed = Counter(
            "gateway_events_suppressed",
            "Events that were not written since their device has caused too many, by type.",
            ["type"],
            registry=registry,
        )
        self._deliveries = Counter(
            "gateway_webhook_deliveries", "Tries to deliver an event to a webhook.", ["outcome"], registry=registry
        )
        self._resets = Histogram(
            "gateway_reset_stage_seconds",
            "Factory resets: delivered (since the request), executed (since delivered), completed (since the request).",
            ["stage"],
            buckets=RESET_BUCKETS,
            registry=registry,
        )
        self._certificates = Counter(
            "gateway_reset_certificates",
            "Certificates of reset, by the outcome of the reset; addendum: what a device said after the end.",
            ["outcome"],
            registry=registry,
        )
        self._commits = Histogram(
            "gateway_commit_seconds", "One transaction of the registry.", buckets=COMMIT_BUCKETS, registry=registry
        )
        self._conflicts = Counter(
            "gateway_write_conflicts",
            "Transactions that met one of another gateway in the database and were run again, by how they met.",
            ["kind"],
            registry=registry,
        )
        self._requests = Histogram(
            "gateway_http_request_seconds",
            "HTTP requests, by the path's template; 499 is a client that went away.",
            ["method", "path", "status"],
            buckets=REQUEST_BUCKETS,
            registry=registry,
        )
        self._connections = Counter(
            "gateway_broker_connections", "Times that the gateway connected to its broker.", registry=registry
        )
        self._lag = Histogram(
            "gateway_ingest_seconds",
            "A batch of messages, from the socket to its acknowledgement after the commit.",
            buckets=COMMIT_BUCKETS,
            registry=registry,
        )
        self._sign_ins = Counter(
            "gateway_refused_sign_ins",
            "Sign-ins that were refused, by where (broker_auth: brokers that ask) and why.",
            ["channel", "reason"],
            registry=registry,
        )
        self._job_targets = Counter(
            "gateway_job_targets",
            "Targets of jobs that have their end, by its outcome.",
            ["outcome"],
            registry=registry,
        )
        self._leases = Counter(
            "gateway_leases_taken",
            "Leases that this gateway took, by kind: at its start, and when it took over from another gateway.",
            ["kind"],
            registry=registry,
        )
        self._show_from_the_start()

    def _show_from_the_start(self) -> None:
        """Show every series from the start: a missing one cannot be told from zero."""
        labels: tuple[tuple[Counter | Histogram, Iterable[str]], ...] = (
            (self._heartbeats, ("stored", "replayed", "reset_only", "unbound")),
            (self._deliveries, ("delivered", "to_be_retried", "failed")),
            (self._resets, ("delivered", "executed", "completed")),
            (self._certificates, ("executed", "failed", "cancelled", "superseded", "addendum")),
            (self._job_targets, ENDS),
            (self._access, ("open", "closed")),
            (self._leases, ("broker", "fleet")),
            (self._conflicts, ("deadlock", "serialization", "stale_statement")),
            (self._events, EventType),
            (self._suppressed, (*SUPPRESSIBLE, EventType.DEVICE_OFFLINE)),
        )
        for metric, values in labels:
            for value in values:
                metric.labels(value)
        for channel, reason in SIGN_INS:
            self._sign_ins.labels(channel, reason)

    def take(self, done: Sequence[Measure]) -> None:
        """Count what a transaction did, once it is committed."""
        counters = {
            measurements.ACCESS: self._access,
            measurements.LEASE: self._leases,
            measurements.HEARTBEAT: self._heartbeats,
            measurements.REFUSAL: self._refusals,
            measurements.EVENT: self._events,
            measurements.EVENT_SUPPRESSED: self._suppressed,
            measurements.DELIVERY: self._deliveries,
            measurements.CERTIFICATE: self._certificates,
            measurements.JOB_TARGET: self._job_targets,
            measurements.CONFLICT: self._conflicts,
        }
        tally: Tally[tuple[str, str]] = Tally()
        for name, label, value in done:
            if name == measurements.COMMIT:
                self._commits.observe(value)
            elif name == measurements.RESET:
                self._resets.labels(label).observe(value)
            else:
                tally[name, label] += int(value)
        for (name, label), count in tally.items():
            counters[name].labels(label).inc(count)

    def request(self, method: str, path: str, status: int, seconds: float) -> None:
        """Count an answered request; ``path`` is the template of its route."""
        known = method if method in METHODS else "other"
        self._requests.labels(known, path, str(status)).observe(seconds)

    def connected(self) -> None:
        """Count a connection to the broker."""
        self._connections.inc()

    def refused(self, code: str) -> None:
        """Count a message that was refused over its budget and not stored."""
        self._refusals.labels(code).inc()

    def sign_in_refused(self, channel: str, reason: str) -> None:
        """Count a refused credential; both labels come from closed lists."""
        self._sign_ins.labels(channel, reason).inc()

    def acknowledged(self, seconds: float) -> None:
        """Observe a batch that was stored and acknowledged so long after it was read from the socket."""
        self._lag.observe(seconds)

    def text(self, *gauges: Gauges) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry) + b"".join(generate_latest(each.registry) for each in gauges)


class Gauges:
    """Gauges of one moment, in a separate registry: made for one answer and dropped."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

    def set(self, name: str, help_text: str, value: float) -> None:
        """Set one gauge."""
        Gauge(f"gateway_{name}", help_text, registry=self.registry).set(value)

    def set_by(
        self, name: str, help_text: str, labels: Sequence[str], values: Iterable[tuple[tuple[str, ...], float]]
    ) -> None:
        """Set one gauge for each of these label values."""
        gauge = Gauge(f"gateway_{name}", help_text, labels, registry=self.registry)
        for key, value in values:
            gauge.labels(*key).set(value)
