"""Runner of all checks, in their order. A check that cannot run is reported, and the others run all the same."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from gateway.broker import doctor_accounts
from gateway.broker.capacity import Capacity, capacities
from gateway.broker.mosquitto import managed
from gateway.broker.mosquitto.session_locks import EXPOSED
from gateway.broker.selection import verified_by
from gateway.core.addresses import BrokerUrl
from gateway.core.topics import Topics
from gateway.doctor import (
    as_device,
    broker_checks,
    database_checks,
    host_checks,
    registry_checks,
    settings_file,
    sign_in_checks,
    tls_checks,
)
from gateway.doctor.broker_checks import Looking, Owner
from gateway.doctor.findings import Area, Finding, Level
from gateway.mqtt.probe import ProbeTarget
from gateway.readiness import reasons
from gateway.runtime import endpoint_file
from gateway.settings.types import EMBEDDED, MOSQUITTO
from gateway.store import Context, View, epoch_sql, gauge_sql, key_sql, lease_sql, open_existing, open_reader, transact
from gateway.store.lease_sql import of_broker
from gateway.store.sqlite.lock import LOCK_NAME, holder
from gateway.tls.certificates import CertificateError, client_context
from gateway.workers.change_poller import ask_for_comparison

if TYPE_CHECKING:
    from gateway.runtime.endpoint_file import Endpoints
    from gateway.settings.loading import Loaded, Settings
    from gateway.store.location import Location

GATEWAY: Final = Area("gateway")
ANSWER_SECONDS: Final = 5.0
PUT_RIGHT_SECONDS: Final = 15.0
_LOOK_SECONDS: Final = 0.5


async def examine(loaded: Loaded, *, fix: bool) -> AsyncIterator[Finding]:
    """Run every check; with ``fix`` ask the running gateway to put right what differs at the broker."""
    settings, directory = loaded.settings, loaded.settings.data_dir
    for finding in _at_rest(loaded):
        yield finding
    pid, where = holder(directory), endpoint_file.read(directory)
    for finding in _sizes(settings, pid, where):
        yield finding
    yield await _alive(pid, where)
    if pid is not None and not (directory / LOCK_NAME).exists():
        yield _no_process_file(directory)
    async for finding in sign_in_checks.provider(settings):
        yield finding
    try:
        target = _target(settings, where)
    except CertificateError as error:
        yield tls_checks.TLS.error("broker's authority", error.message, "See 'gateway docs tls'.")
        return
    async for finding in tls_checks.listener(settings):
        yield finding
    if target is None:
        yield broker_checks.BROKER.ok("reachable", "the gateway has a broker of its own, which runs when it does")
        return
    async for finding in _at_the_broker(settings, target, where if pid is not None else None, fix=fix):
        yield finding


def _no_process_file(directory: Path) -> Finding:
    return GATEWAY.warning(
        "process file",
        f"{directory / LOCK_NAME} is missing: it was removed by hand while the gateway runs",
        "Restart the gateway, which writes it again. The directory is held all the same: no second gateway starts.",
    )


async def _at_the_broker(
    settings: Settings, target: ProbeTarget, where: Endpoints | None, *, fix: bool
) -> AsyncIterator[Finding]:
    """Check who can connect there, and with a running gateway (``where``) what shows from inside."""
    async for finding in broker_checks.strangers(target):
        yield finding
        if finding.name == "reachable":
            return
    async for finding in _as_device(settings, where, target):
        yield finding
    if where is None:
        yield broker_checks.BROKER.warning(
            "looked at from inside",
            "that needs a running gateway, which lets the doctor in",
            "Start the gateway; it compares the broker with the registry at each connect.",
        )
    elif registry_checks.has_own_schema(settings.registry):
        async for finding in _inside(settings, target, fix=fix):
            yield finding


def _at_rest(loaded: Loaded) -> Iterator[Finding]:
    """Check what can be checked whether a gateway runs or not."""
    directory = loaded.settings.data_dir
    yield from host_checks.settings(loaded)
    yield from settings_file.settings_file(
        loaded, doctor_accounts.read(directory) if holder(directory) is not None else None
    )
    yield from host_checks.data_directory(directory)
    yield from _registry(loaded.settings)
    yield from host_checks.clock()
    yield from tls_checks.certificates(loaded.settings)


def _registry(settings: Settings) -> Iterator[Finding]:
    if settings.database is None:
        yield from registry_checks.registry(settings.data_dir, settings.encryption_key_file)
    else:
        yield from database_checks.database(settings)


async def _as_device(settings: Settings, where: Endpoints | None, target: ProbeTarget) -> AsyncIterator[Finding]:
    """Try what a bind tells devices."""
    place = as_device.told(settings, where)
    if place is not None:
        address, tls_told = place
        asked = settings.mqtt_client_ca_file is not None  # for a certificate of the device, which the doctor lacks
        accounts = None if where is None or asked else doctor_accounts.read(settings.data_dir)
        async for finding in as_device.as_device(address, tls=tls_told, accounts=accounts, inside=target):
            yield finding


def _sizes(settings: Settings, pid: int | None, where: Endpoints | None) -> Iterator[Finding]:
    """Check that there is room for the fleet."""
    fleet, kind = _fleet(settings), where.kind if where else _kind(settings)
    if pid:
        of_devices = fleet.devices if kind == EMBEDDED else 0
        yield host_checks.limits(pid, "open files", host_checks.FILES_PER_STREAM + of_devices)
    own = managed.pid(settings) if kind == MOSQUITTO else None
    if own is not None:
        yield host_checks.limits(own, "open files of Mosquitto", host_checks.FILES_PER_STREAM + fleet.devices)
    yield from _capacities(settings, kind)


def _capacities(settings: Settings, kind: str) -> list[Finding]:
    """Check that the fleet fits the broker."""
    try:
        with _reading(settings.registry) as view:
            return [_size(each, each.counted(view, settings.broker_id)) for each in capacities(kind, settings)]
    except Exception:  # noqa: BLE001 - an unreadable registry has been reported
        return []


def _kind(settings: Settings) -> str:
    """Return the kind of broker of a gateway that does not run, as far as the settings name it."""
    return settings.broker if settings.broker in (EMBEDDED, MOSQUITTO) else ""


def _size(capacity: Capacity, number: int) -> Finding:
    warning = capacity.warning(number)
    if warning:
        return broker_checks.BROKER.warning(capacity.name, warning.message, capacity.remedy)
    return broker_checks.BROKER.ok(capacity.name, f"{number} of {capacity.most} {capacity.unit}")


async def _inside(settings: Settings, target: ProbeTarget, *, fix: bool) -> AsyncIterator[Finding]:
    looking = _looking(settings, target)
    if looking is None:
        return
    findings = [finding async for finding in broker_checks.inside(looking)]
    differs = [each for each in findings if each.area == broker_checks.RETAINED.name and each.level is not Level.OK]
    for finding in findings:
        if finding not in differs or not fix:
            yield finding
    if fix:
        # Access is compared too, but no doctor can see from outside whether it differs.
        _ask_for_comparison(settings.registry)
    if differs and fix:
        yield await _put_right(looking, differs[0])


def _ask_for_comparison(location: Location) -> None:
    with closing(open_existing(location)) as connection:
        transact(connection, Context(), ask_for_comparison)


async def _put_right(looking: Looking, before: Finding) -> Finding:
    """Wait until the broker holds what it should, as the running gateway was asked to ensure."""
    try:
        async with asyncio.timeout(PUT_RIGHT_SECONDS):
            while True:
                after = [
                    each async for each in broker_checks.inside(looking) if each.area == broker_checks.RETAINED.name
                ]
                if after and after[0].level is Level.OK:
                    return Finding(
                        after[0].area, "comparison", Level.OK, f"put right: {after[0].says}", details=before.details
                    )
                await asyncio.sleep(_LOOK_SECONDS)
    except TimeoutError:
        return broker_checks.RETAINED.error(
            "comparison",
            f"{before.says}, and the gateway did not put them right",
            "See /ready and its log.",
            *before.details,
        )


def _looking(settings: Settings, target: ProbeTarget) -> Looking | None:
    accounts = doctor_accounts.read(settings.data_dir)
    if accounts is None:
        return None
    with _reading(settings.registry) as view:
        gateway_id = key_sql.meta(view, "gateway_id") or ""
        lease = next((each for each in lease_sql.leases(view) if each.name == of_broker(settings.broker_id)), None)
        owner = Owner(epoch_sql.registry_id(view), None if lease is None else lease.instance)
    names = Topics(settings.topic_prefix)
    return Looking(target, accounts, names, gateway_id, owner, lambda: _reading(settings.registry))


@contextmanager
def _reading(location: Location) -> Iterator[View]:
    with closing(open_reader(location)) as connection:
        yield View(connection)


def _fleet(settings: Settings) -> gauge_sql.FleetGauges:
    try:
        with _reading(settings.registry) as view:
            return gauge_sql.fleet(view)
    except Exception:  # noqa: BLE001 - an unreadable registry has been reported
        return gauge_sql.FleetGauges()


def _target(settings: Settings, where: Endpoints | None) -> ProbeTarget | None:
    if isinstance(settings.broker, BrokerUrl):
        return ProbeTarget(settings.broker.address, verified_by(settings))
    if where is None:
        return None
    pinned = client_context(None, pinned=where.inner_certificate) if where.inner_certificate else None
    return ProbeTarget(where.inner or where.broker, pinned)


async def _alive(pid: int | None, where: Endpoints | None) -> Finding:
    process = f"process {pid}" if pid else "a process"
    if pid is None:
        return GATEWAY.warning("running", "no gateway runs on this data directory", "Start it: gateway serve.")
    if where is None:
        return GATEWAY.error(
            "running",
            f"{process} holds the data directory, and {endpoint_file.FILE_NAME} is missing: it starts now, or "
            "the file was removed by hand",
            f"Look again in a moment; if it stays so, restart the gateway: it writes {endpoint_file.FILE_NAME} again.",
        )
    try:
        report = await asyncio.to_thread(_ready, where)
    except (OSError, ValueError, CertificateError) as error:
        return GATEWAY.error(
            "running", f"{process} runs, and {where.http_url}/ready does not answer ({error})", "See its log."
        )
    link, access, outbox = report["broker"], report["access"], report["outbox"]
    waiting = f"{'at least ' if outbox.get('at_least') else ''}{outbox['depth']}"
    says = (
        f"{process} at {where.http_url}; MQTT {link['mqtt_version'] or '-'}, "
        f"access managed by {access['managed_by']}, outbox {waiting}"
    )
    if report["ready"] and access["error"]:
        found = GATEWAY.error if EXPOSED in access["error"] else GATEWAY.warning
        return found("ready", says, str(access["error"]))
    if report["ready"]:
        return GATEWAY.ok("ready", says)
    return GATEWAY.error("ready", f"it is not: {says}", "The reasons below say what to do.", *reasons(report))


def _ready(where: Endpoints) -> dict[str, Any]:
    url = where.http_url
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"{url} is no address of a gateway")
    pinned = client_context(None, pinned=where.certificate) if where.certificate else None
    try:
        with urllib.request.urlopen(f"{url}/ready", timeout=ANSWER_SECONDS, context=pinned) as answer:  # noqa: S310
            report: dict[str, Any] = json.load(answer)
    except urllib.error.HTTPError as error:
        report = json.load(error)
    return report
