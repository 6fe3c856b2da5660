"""Where a running gateway listens, for other processes and on the terminal, then that it is ready."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import structlog

from gateway import __version__
from gateway.core.addresses import Address
from gateway.core.text import as_called
from gateway.errors import StoreError
from gateway.readiness import reasons
from gateway.runtime import build_info
from gateway.runtime.endpoint_file import Endpoints, published
from gateway.store import key_sql

if TYPE_CHECKING:
    from gateway.running import Running
    from gateway.settings.loading import Settings

log = structlog.get_logger()

BROKER_NAMES: Final = {"embedded": "embedded broker", "mosquitto": "Mosquitto of its own", "external": "your broker"}
LATE_SECONDS: Final = 3.0
"""After this time a gateway that is not ready says why. Usually it is ready within half a second."""
LOOK_SECONDS: Final = 0.1


@contextmanager
def endpoints_published(gateway: Running) -> Iterator[None]:
    """Write where the gateway listens to the log, and for the block to the data directory."""
    broker, version = gateway.broker, build_info.described()
    inner = Address(broker.upstream.host, broker.upstream.port) if gateway.settings.own_broker else None
    endpoints = Endpoints(
        gateway.http.url,
        broker.advertised,
        broker.tls,
        gateway.settings.http_cert_file,
        inner,
        broker.pinned,
        broker.kind,
        version,
    )
    with published(gateway.settings.data_dir, endpoints):
        log.info(
            "gateway.started",
            version=version,
            http=gateway.http.url,
            broker=str(broker.advertised),
            access=broker.access.name,
        )
        yield


async def announce(gateway: Running) -> None:
    """Print where the gateway listens, and how to make the first key."""
    scheme = "mqtts" if gateway.broker.tls else "mqtt"
    kind = BROKER_NAMES[gateway.broker.kind]
    lines = [
        f"gateway {__version__} has started",
        f"  HTTP  {gateway.http.url}",
        f"  MQTT  {scheme}://{gateway.broker.advertised} ({kind})",
        f"  data  {gateway.settings.data_dir}",
        *([f"  base  {gateway.settings.database}"] if gateway.settings.database else []),
        f"  page  {gateway.http.url}/ (sign in with an API key)",
    ]
    if not await gateway.store.read(key_sql.all_keys):
        lines.append(f"Make an API key: {as_called()} keys create --name NAME {_registry_options(gateway.settings)}")
    _say("\n".join(lines))


def _registry_options(settings: Settings) -> str:
    """Return the options by which another command finds this registry. They hold no password."""
    if settings.database is None:
        return f"--data-dir {shlex.quote(str(settings.data_dir))}"
    file = settings.database_password_file
    password = "" if file is None else f" --database-password-file {shlex.quote(str(file))}"
    return f"--database {shlex.quote(settings.database.url)}{password}"


async def announce_readiness(gateway: Running) -> None:
    """Print that the gateway is ready, and before that what is in the way if it takes long."""
    late = asyncio.get_running_loop().time() + LATE_SECONDS
    told = False
    while not (report := await _report(gateway))["ready"]:
        if not told and asyncio.get_running_loop().time() > late:
            told = True
            why = "; ".join(reasons(report)) or "the broker is still being compared with the registry"
            _say(f"gateway {__version__} is not ready yet: {why}")
        await asyncio.sleep(LOOK_SECONDS)
    _say(f"gateway {__version__} is ready")


async def _report(gateway: Running) -> dict[str, Any]:
    try:
        return await gateway.readiness.report()
    except StoreError as error:
        return {"ready": False, "registry": {"error": error.message}}


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - for the person who started it
