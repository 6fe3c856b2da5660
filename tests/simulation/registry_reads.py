"""Reads of the committed registry, for checks from outside the gateway."""

from __future__ import annotations

import json
from typing import Any

from gateway.store import Row
from tests.simulation.device_host import DeviceHost
from tests.simulation.disk import Disk
from tests.simulation.model_state import RESET


class RegistryReads:
    """Rows of what is committed on ``disk``."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk

    def row(self, sql: str, *values: Any) -> Row | None:
        """One row of what is committed."""
        found: Row | None = self.disk.execute(sql, values).fetchone()
        return found

    def rows(self, sql: str, *values: Any) -> list[Row]:
        """Rows of what is committed."""
        return self.disk.execute(sql, values).fetchall()

    def command(self, command_id: str) -> Row | None:
        """A command with its ``device_id``."""
        return self.row(
            "SELECT c.*, d.id AS device_id FROM commands c JOIN devices d ON d.pk = c.device_pk WHERE c.id = ?",
            command_id,
        )

    def open_command(self, device: DeviceHost, kind: str = RESET) -> Row | None:
        """The open command of this type."""
        return self.row(
            """SELECT c.* FROM commands c JOIN devices d ON d.pk = c.device_pk
                WHERE d.id = ? AND c.type = ? AND c.status IN ('pending', 'delivered')""",
            device.id,
            kind,
        )

    def pk(self, device: DeviceHost) -> int:
        """The device's row number."""
        row = self.row("SELECT pk FROM devices WHERE id = ?", device.id)
        return 0 if row is None else int(row["pk"])


def shown_facts(data: str) -> dict[str, Any]:
    """The facts of an event that a run's story shows."""
    wanted = ("device_id", "command_id", "binding_generation", "code")
    return {name: value for name, value in json.loads(data).items() if name in wanted}
