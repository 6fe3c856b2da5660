"""Servers of the benchmark: ``gateway serve`` as a user starts it, and the bare handler as its floor."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from bench.broker import HOST, Broker, mosquitto
from bench.caller import caller
from bench.process import BenchError, Program, program
from bench.registry import Registry
from bench.subject import PASSWORD_VARIABLE

OK: Final = 200
LOG: Final = "bench.log"
"""File in the data directory that has what the gateway logs."""
_POLL_SECONDS: Final = 0.05
_READY_TRIES: Final = 12_000
"""A large registry takes longer."""


@dataclass(frozen=True)
class Server:
    """A running server, its HTTP port, and the Mosquitto beside it."""

    process: Program
    port: int
    broker: Broker | None


@asynccontextmanager
async def gateway(
    data_dir: Path, broker: Broker | None, more: Mapping[str, str] | None = None
) -> AsyncIterator[Server]:
    """Run ``gateway serve`` on this data directory and broker (``None``: embedded); it is ready in the block.

    The environment passes the settings in ``more``.
    """
    environ = {
        "GATEWAY_DATA_DIR": str(data_dir),
        "GATEWAY_BROKER": "embedded",
        "GATEWAY_HTTP": f"{HOST}:0",
        "GATEWAY_MQTT": f"{HOST}:0",
        "GATEWAY_RATE_LIMIT_PER_MINUTE": "0",
        **({} if broker is None else _beside(broker)),
        **(more or {}),
    }
    async with program(sys.executable, "-m", "gateway", "serve", environ=environ, log=data_dir / LOG) as process:
        port = urlsplit(await process.line("HTTP")).port
        assert port, "the gateway prints the port that it has"
        await _ready(port)
        yield Server(process, port, broker)


def _beside(broker: Broker) -> Mapping[str, str]:
    return {
        "GATEWAY_BROKER": broker.url,
        "GATEWAY_MOSQUITTO_PASSWORD_FILE": str(broker.files.password_file),
        "GATEWAY_MOSQUITTO_PID_FILE": str(broker.files.pid_file),
    }


async def _ready(port: int) -> None:
    async with caller(port, "") as http:
        for _ in range(_READY_TRIES):
            if await http.call("GET", "/ready") == OK:
                return
            await asyncio.sleep(_POLL_SECONDS)
    raise BenchError("the gateway does not become ready: GET /ready says why")


@asynccontextmanager
async def bare(database: str, broker: Broker) -> AsyncIterator[Server]:
    """Run the bare handler on a separate database: the path of a file of SQLite, or a URL."""
    command = (sys.executable, "-m", "bench.bare", database, str(broker.port))
    async with program(*command, environ={PASSWORD_VARIABLE: broker.password}) as process:
        yield Server(process, int(await process.line("HTTP")), broker)


@asynccontextmanager
async def gateway_stack(registry: Registry, folder: Path) -> AsyncIterator[Server]:
    """Run a gateway with its own Mosquitto, on a new copy of the registry."""
    async with mosquitto(folder, registry.broker_entries) as broker:
        copied = registry.copy(folder / "data")
        async with gateway(copied.data_dir, broker, copied.environ) as server:
            yield server


@asynccontextmanager
async def bare_stack(registry: Registry, folder: Path) -> AsyncIterator[Server]:
    """Run the bare handler with its own Mosquitto, which knows the same devices."""
    database = str(folder / "bare.db") if registry.databases is None else registry.databases.new().url
    async with (
        mosquitto(folder, registry.broker_entries) as broker,
        bare(database, broker) as server,
    ):
        yield server
