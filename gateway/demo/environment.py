"""Environment of the demo: a gateway with its embedded broker in a temporary folder, and an API key."""

from __future__ import annotations

import random
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from device_sim import DirectoryFlash, Fact, GatewayApi, SimulatedDevice
from gateway.app import running
from gateway.running import Running
from gateway.settings.loading import load
from gateway.store import key_sql

Radio = Literal["wifi", "cellular", "ble"]

HEARTBEAT_SECONDS: Final = 1.0
SEED: Final = 20


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
async def stage(http: str = "127.0.0.1:0", mqtt: str = "127.0.0.1:0") -> AsyncIterator[Stage]:
    """Set it up, and leave nothing behind."""
    with tempfile.TemporaryDirectory(prefix="gateway-demo-") as folder:
        options = {
            "data_dir": f"{folder}/data",
            "http": http,
            "mqtt": mqtt,
            "heartbeat_interval_seconds": str(HEARTBEAT_SECONDS),
        }
        # The environment is ignored: a demo beside a configured gateway must not touch its data or broker.
        async with running(load(options, {}).settings) as gateway:
            _, key = await gateway.store.write(
                lambda tx: key_sql.create(tx, gateway.registry.project_id, "demo", test=True)
            )
            async with GatewayApi(gateway.http.url, key) as api:
                yield Stage(gateway, key, Path(folder), api)


__all__ = ["Fact", "Radio", "Stage", "stage"]
