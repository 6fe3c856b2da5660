"""Ingest alone: the gateway's registry and its connection to the broker, without the rest of the gateway.

``python -m bench.subject DATA_DIR PORT`` reads the broker's password, and the URL of a database on PostgreSQL, from the
environment. It prints ``ready`` when it has subscribed, reconciled and worked off its outbox, and runs until SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Final

from bench.broker import GATEWAY_USER, HOST, eventually
from gateway.bootstrap import first_start
from gateway.core.topics import Topics
from gateway.mqtt import connect
from gateway.mqtt.connection import BrokerConnection
from gateway.runtime import gc_tuning, log
from gateway.runtime.loop_priority import LoopPriority
from gateway.settings.loading import load
from gateway.store import Context, Rules, Store, outbox_sql
from gateway.store.wakeups import Wakeups

PASSWORD_VARIABLE: Final = "BENCH_BROKER_PASSWORD"  # noqa: S105 - the name of a variable
DATABASE_VARIABLE: Final = "GATEWAY_DATABASE"
FILTER: Final = "devices/+/heartbeat"
_POLL_SECONDS: Final = 0.02


async def main(data_dir: Path, port: int, loop_priority: LoopPriority) -> None:
    """Run the parts in the same composition as ``gateway serve``."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    database = os.environ.get(DATABASE_VARIABLE)
    settings = load({"data_dir": str(data_dir)} | ({"database": database} if database else {}), {}).settings
    gateway_id, _ = first_start(settings)
    wakeups = Wakeups()
    context = Context(rules=Rules(gateway_id=gateway_id, device_messages_per_second=50))
    async with Store(settings.registry, context, wakeups, loop_priority=loop_priority) as store:
        connection = _connection(port, store, wakeups)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(connection.run(), name="connection")
            await eventually(lambda: connection.status.reconciled, "connection to the broker")
            await _cleared(store)
            gc_tuning.tune_gc()
            print("ready", flush=True)  # noqa: T201 - the benchmark reads it
            await stop.wait()
            running.cancel()


async def _cleared(store: Store) -> None:
    """Wait until a topic of each device is cleared, as its bind has asked: a fleet was bound long ago."""
    while await store.read(lambda view: view.value("SELECT count(*) FROM outbox WHERE kind = ?", outbox_sql.TOPIC)):  # noqa: ASYNC110 - no event tells
        await asyncio.sleep(_POLL_SECONDS)


def _connection(port: int, store: Store, wakeups: Wakeups) -> BrokerConnection:
    address = connect.BrokerAddress(HOST, port, GATEWAY_USER, os.environ[PASSWORD_VARIABLE], version="5")
    return BrokerConnection(address, auto_version=True, store=store, topics=Topics(""), wakeups=wakeups)


if __name__ == "__main__":
    log.configure("warning", "json")
    first = LoopPriority()
    with asyncio.Runner(loop_factory=first.new_loop) as runner:
        runner.run(main(Path(sys.argv[1]), int(sys.argv[2]), first))
