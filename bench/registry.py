"""Registry with bound devices, made once and copied for each round, so that all rounds start alike."""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.bootstrap import first_start
from gateway.domain import devices
from gateway.models.devices import RegisterDevice
from gateway.settings.loading import load
from gateway.store import Context, Rules, Tx, View, key_sql, open_database, token_sql, transact

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

    def copy(self, to: Path) -> Path:
        """Copy the data directory to ``to``, and return that path."""
        return Path(shutil.copytree(self.data_dir, to))


def prepare(data_dir: Path, devices: int) -> Registry:
    """Make a registry with so many devices, each bound to a different end user."""
    gateway_id, project_id = first_start(load({"data_dir": str(data_dir)}, {}).settings)
    context = Context(rules=Rules(gateway_id=gateway_id))
    with closing(open_database(data_dir)) as connection:
        _, api_key = transact(connection, context, lambda tx: key_sql.create(tx, project_id, "bench", test=True))
        bound = transact(connection, context, lambda tx: [_bind(tx, project_id, number) for number in range(devices)])
        entries = token_sql.broker_entries(View(connection))
    return Registry(data_dir, gateway_id, api_key, tuple(bound), tuple(entries))


def _bind(tx: Tx, project_id: str, number: int) -> tuple[str, str]:
    body = RegisterDevice(serial_number=f"BENCH-{number:06}")
    device, _ = devices.register(tx, project_id, body, _ACTOR)
    binding = devices.bind(tx, project_id, device.id, f"eu_{number}", _ACTOR)
    return device.id, binding.mqtt_password
