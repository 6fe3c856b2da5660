"""Registry with bound devices, made once and copied for each round, so that all rounds start alike."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bench.postgres import Databases
from gateway.bootstrap import first_start
from gateway.core.postgres_address import PostgresAddress
from gateway.domain import devices
from gateway.models.devices import RegisterDevice
from gateway.settings.loading import load
from gateway.store import Context, Rules, Tx, View, key_sql, open_database, token_sql, transact
from gateway.store.location import Location

_ACTOR: Final = "bench"


@dataclass(frozen=True)
class Registry:
    """A data directory of a stopped gateway, and the secrets of its devices."""

    data_dir: Path
    gateway_id: str
    api_key: str
    devices: tuple[tuple[str, str], ...]
    """Id and MQTT password of each device."""
    broker_entries: tuple[tuple[str, str], ...]
    """Id of each device, and its line in Mosquitto's password file."""
    database: PostgresAddress | None = None
    """The database of the registry; None: SQLite in the data directory."""
    databases: Databases | None = None
    """The server of the database."""

    def copy(self, to: Path) -> Registry:
        """Return a copy with the data directory ``to``."""
        copied = replace(self, data_dir=Path(shutil.copytree(self.data_dir, to)))
        if self.database is None or self.databases is None:
            return copied
        return replace(copied, database=self.databases.copy(self.database))

    @property
    def location(self) -> Location:
        """Return where it is."""
        return self.data_dir if self.database is None else self.database

    @property
    def environ(self) -> Mapping[str, str]:
        """Return the settings of a gateway on it that name its database."""
        return {} if self.database is None else {"GATEWAY_DATABASE": self.database.url}


def prepare(data_dir: Path, devices: int, databases: Databases | None = None) -> Registry:
    """Make a registry with so many devices, each bound to a different end user; without databases on SQLite."""
    data_dir.mkdir(parents=True, exist_ok=True)
    database = None if databases is None else databases.new()
    given = {"data_dir": str(data_dir)} | ({} if database is None else {"database": database.url})
    settings = load(given, {}).settings
    gateway_id, project_id = first_start(settings)
    context = Context(rules=Rules(gateway_id=gateway_id))
    with closing(open_database(settings.registry)) as connection:
        _, api_key = transact(connection, context, lambda tx: key_sql.create(tx, project_id, "bench", test=True))
        bound = transact(connection, context, lambda tx: [_bind(tx, project_id, number) for number in range(devices)])
        entries = token_sql.broker_entries(View(connection))
    return Registry(data_dir, gateway_id, api_key, tuple(bound), tuple(entries), database, databases)


def _bind(tx: Tx, project_id: str, number: int) -> tuple[str, str]:
    body = RegisterDevice(serial_number=f"BENCH-{number:06}")
    device, _ = devices.register(tx, project_id, body, _ACTOR)
    binding = devices.bind(tx, project_id, device.id, f"eu_{number}", _ACTOR)
    return device.id, binding.mqtt_password
