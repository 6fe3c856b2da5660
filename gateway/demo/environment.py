"""Environment of the demo: a gateway with its embedded broker in a temporary folder, and an API key."""

from __future__ import annotations

import random
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from device_sim import DirectoryFlash, Fact, GatewayApi, SimulatedDevice
from gateway.app import running
from gateway.errors import ConflictError
from gateway.running import Running
from gateway.runtime.postgres_server import PostgresServer
from gateway.settings.loading import Settings, load
from gateway.store import key_sql, open_reader
from gateway.store.errors import DATABASE_ERRORS, OPENED, store_error

Radio = Literal["wifi", "cellular", "ble"]

HEARTBEAT_SECONDS: Final = 1.0
SEED: Final = 20
EMBEDDED_POSTGRES: Final = "embedded-postgres"
"""The word for a server that ends with the demo."""


@dataclass(frozen=True)
class Stage:
    """A running gateway, a key for it, a folder for the devices' flash."""

    gateway: Running
    key: str
    folder: Path
    api: GatewayApi

    def device(self, serial: str, radio: Radio, on_fact: Any = None) -> SimulatedDevice:
        """Return a new simulated device with its flash on disk."""
        return SimulatedDevice(
            serial=serial,
            radio=radio,
            flash=DirectoryFlash(self.folder / "flash" / serial),
            api=self.api,
            interval=HEARTBEAT_SECONDS,
            rng=random.Random(f"{SEED}/{serial}"),  # noqa: S311 - a simulation
            on_fact=on_fact,
        )


@asynccontextmanager
async def stage(
    http: str = "127.0.0.1:0", mqtt: str = "127.0.0.1:0", database: str | None = None
) -> AsyncIterator[Stage]:
    """Set it up, and leave nothing behind. ``database`` is a URL, ``embedded-postgres``, or None for SQLite.

    Raises:
        ConflictError: the database holds a registry.
        UnavailableError: there is no such server, or PostgreSQL's programs are not installed.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="gateway-demo-"))
        options = {
            "data_dir": f"{folder}/data",
            "http": http,
            "mqtt": mqtt,
            "heartbeat_interval_seconds": str(HEARTBEAT_SECONDS),
        }
        # The environment is ignored: a demo beside a configured gateway must not touch its data or broker.
        settings = load({**options, "database": _url(stack, database)}, {}).settings
        _require_new(settings)
        async with running(settings) as gateway:
            _, key = await gateway.store.write(
                lambda tx: key_sql.create(tx, gateway.registry.project_id, "demo", test=True)
            )
            async with GatewayApi(gateway.http.url, key) as api:
                yield Stage(gateway, key, Path(folder), api)


def _url(stack: ExitStack, database: str | None) -> str | None:
    if database != EMBEDDED_POSTGRES:
        return database
    return stack.enter_context(PostgresServer(durable=True)).address().url


def _require_new(settings: Settings) -> None:
    """Refuse a database with a registry, where the demo's devices would stand among others."""
    if settings.database is None:
        return
    with closing(open_reader(settings.registry)) as connection:
        try:
            found = connection.applied_steps()
        except DATABASE_ERRORS as error:
            raise store_error(error, OPENED, again=False) from error
    if found:
        raise ConflictError(
            "registry_exists", f"{settings.database} holds a registry. Name an empty database for the demo."
        )


__all__ = ["Fact", "Radio", "Stage", "stage"]
