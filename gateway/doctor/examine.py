"""All checks in their order. What cannot be looked at is said, and the rest is looked at all the same."""

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

from gateway import outgrown, whereabouts
from gateway.addresses import BrokerUrl
from gateway.broker import own_mosquitto, probes
from gateway.brokers import verified_by
from gateway.certificates import CertificateError, client_context
from gateway.doctor import broker, installation, tls
from gateway.doctor.broker import Looking
from gateway.doctor.findings import Area, Finding, Level
from gateway.mqtt.probe import Target
from gateway.settings_types import EMBEDDED, MOSQUITTO
from gateway.store import DATABASE_NAME, Context, View, figures, keys, transact
from gateway.store.database import connect
from gateway.store.lock import holder
from gateway.topics import Topics
from gateway.watcher import ask_for_comparison

if TYPE_CHECKING:
    from gateway.settings import Loaded, Settings
    from gateway.whereabouts import Whereabouts

GATEWAY: Final = Area("gateway")
ANSWER_SECONDS: Final = 5.0
PUT_RIGHT_SECONDS: Final = 15.0
_LOOK_SECONDS: Final = 0.5


async def examine(loaded: Loaded, *, fix: bool) -> AsyncIterator[Finding]:
    """Look at everything; with ``fix`` have the running gateway put right what differs at the broker."""
    settings, directory = loaded.settings, loaded.settings.data_dir
    for finding in _at_rest(loaded):
        yield finding
    pid, where = holder(directory), whereabouts.read(directory)
    running = pid is not None and where is not None and installation.has_own_schema(directory)
    for finding in _sizes(settings, pid, where):
        yield finding
    yield await _alive(pid, where)
    try:
        target = _target(settings, where)
    except CertificateError as error:
        yield tls.TLS.error("broker's authority", error.message, "See 'gateway docs tls'.")
        return
    async for finding in tls.listener(settings):
        yield finding
    if target is None:
        yield broker.BROKER.ok("reachable", "the gateway has a broker of its own, which runs when it does")
        return
    async for finding in broker.strangers(target):
        yield finding
        if finding.name == "reachable":
            return
    if running:
        async for finding in _inside(settings, target, fix=fix):
            yield finding
    else:
        yield broker.BROKER.warning(
            "looked at from inside",
            "that needs a running gateway, which lets the doctor in",
            "Start the gateway; it compares the broker with the registry at each connect.",
        )


def _at_rest(loaded: Loaded) -> Iterator[Finding]:
    """What can be seen whether a gateway runs or not."""
    directory = loaded.settings.data_dir
    yield from installation.settings(loaded)
    yield from installation.data_directory(directory)
    yield from installation.registry(directory)
    yield from installation.clock()
    yield from tls.certificates(loaded.settings)


def _sizes(settings: Settings, pid: int | None, where: Whereabouts | None) -> Iterator[Finding]:
    """Is there room for the fleet?"""
    fleet, kind = _fleet(settings.data_dir), where.kind if where else "embedded" if settings.embedded else ""
    if pid is not None:
        of_devices = fleet.devices if kind == EMBEDDED else 0
        yield installation.limits(pid, "open files", installation.FILES_PER_STREAM + of_devices)
    own = own_mosquitto.pid(settings) if kind == MOSQUITTO else None
    if own is not None:
        yield installation.limits(own, "open files of Mosquitto", installation.FILES_PER_STREAM + fleet.devices)
    if kind == EMBEDDED:
        said = outgrown.outgrown(fleet.bound)
        yield (
            broker.BROKER.warning("size of the fleet", said, outgrown.REMEDY)
            if said
            else broker.BROKER.ok("size of the fleet", f"{fleet.bound} of {outgrown.MOST_BOUND} bound devices")
        )


async def _inside(settings: Settings, target: Target, *, fix: bool) -> AsyncIterator[Finding]:
    looking = _looking(settings, target)
    if looking is None:
        return
    findings = [finding async for finding in broker.inside(looking)]
    differs = [each for each in findings if each.area == broker.RETAINED.name and each.level is not Level.OK]
    for finding in findings:
        if finding not in differs or not fix:
            yield finding
    if fix:
        # Who may connect is compared too, and no doctor can see from outside whether that differs.
        _ask_for_comparison(settings.data_dir)
    if differs and fix:
        yield await _put_right(looking, differs[0])


def _ask_for_comparison(directory: Path) -> None:
    with closing(connect(directory / DATABASE_NAME)) as connection:
        transact(connection, Context(), ask_for_comparison)


async def _put_right(looking: Looking, before: Finding) -> Finding:
    """Look until the broker holds what it should, as the running gateway was asked to see to."""
    try:
        async with asyncio.timeout(PUT_RIGHT_SECONDS):
            while True:
                after = [each async for each in broker.inside(looking) if each.area == broker.RETAINED.name]
                if after and after[0].level is Level.OK:
                    return Finding(
                        after[0].area, "comparison", Level.OK, f"put right: {after[0].says}", details=before.details
                    )
                await asyncio.sleep(_LOOK_SECONDS)
    except TimeoutError:
        return broker.RETAINED.error(
            "comparison",
            f"{before.says}, and the gateway did not put them right",
            "See /ready and its log.",
            *before.details,
        )


def _looking(settings: Settings, target: Target) -> Looking | None:
    accounts = probes.read(settings.data_dir)
    if accounts is None:
        return None
    with _reading(settings.data_dir) as view:
        gateway_id = keys.meta(view, "gateway_id") or ""
    return Looking(target, accounts, Topics(settings.topic_prefix), gateway_id, lambda: _reading(settings.data_dir))


@contextmanager
def _reading(directory: Path) -> Iterator[View]:
    with closing(connect(directory / DATABASE_NAME, read_only=True)) as connection:
        yield View(connection)


def _fleet(directory: Path) -> figures.Fleet:
    try:
        with _reading(directory) as view:
            return figures.fleet(view)
    except Exception:  # noqa: BLE001 - that the registry cannot be read has been said
        return figures.Fleet(0, 0, 0, 0, 0, 0)


def _target(settings: Settings, where: Whereabouts | None) -> Target | None:
    if isinstance(settings.broker, BrokerUrl):
        return Target(settings.broker.address, verified_by(settings))
    if where is None:
        return None
    pinned = client_context(None, pinned=where.inner_certificate) if where.inner_certificate else None
    return Target(where.inner or where.broker, pinned)


async def _alive(pid: int | None, where: Whereabouts | None) -> Finding:
    if pid is None or where is None:
        return GATEWAY.warning("running", "no gateway runs on this data directory", "Start it: gateway serve.")
    try:
        report = await asyncio.to_thread(_ready, where)
    except (OSError, ValueError, CertificateError) as error:
        return GATEWAY.error(
            "running", f"process {pid} runs, and {where.http_url}/ready does not answer ({error})", "See its log."
        )
    link, access, outbox = report["broker"], report["access"], report["outbox"]
    says = (
        f"process {pid} at {where.http_url}; MQTT {link['mqtt_version'] or '-'}, "
        f"access managed by {access['managed_by']}, outbox {outbox['depth']}"
    )
    if report["ready"] and access["error"]:
        return GATEWAY.warning("ready", says, str(access["error"]))
    if report["ready"]:
        return GATEWAY.ok("ready", says)
    told = (
        report["registry"]["error"],
        link["error"],
        access["error"],
        *(each["error"] for each in report["certificates"]),
    )
    reasons = [str(each) for each in told if each]
    return GATEWAY.error("ready", f"it is not: {says}", "The reasons below say what to do.", *reasons)


def _ready(where: Whereabouts) -> dict[str, Any]:
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
