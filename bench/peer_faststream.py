"""FastStream peer: ``python -m bench.peer_faststream DATABASE PORT``, with FastStream on ``PYTHONPATH``.

A handler runs a transaction per message, as in the documentation. FastStream acknowledges when the handler has
returned. FastStream's validation is left out, since all peers validate in :func:`bench.peer.store`.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from contextlib import closing
from typing import Any

from faststream import FastStream, Path  # type: ignore[import-not-found]
from faststream.mqtt import MQTTBroker, QoS  # type: ignore[import-not-found]
from faststream.security import SASLPlaintext  # type: ignore[import-not-found]

from bench.broker import GATEWAY_USER, HOST
from bench.peer import open_database, store
from bench.subject import PASSWORD_VARIABLE


def application(database: sqlite3.Connection, port: int, password: str) -> Any:
    """Return the application before its start."""
    security = SASLPlaintext(username=GATEWAY_USER, password=password)
    broker = MQTTBroker(f"mqtt://{HOST}:{port}", security=security, logger=None)

    async def stored(body: bytes, device: str = Path()) -> None:
        store(database, [(f"devices/{device}/heartbeat", body)])

    broker.subscriber("devices/{device}/heartbeat", qos=QoS.AT_LEAST_ONCE, decoder=_as_it_came)(stored)

    async def ready() -> None:
        print("ready", flush=True)  # noqa: T201 - the benchmark reads it

    return FastStream(broker, after_startup=[ready], logger=None)


async def _as_it_came(message: Any) -> bytes:
    return bytes(message.body)


if __name__ == "__main__":
    with closing(open_database(sys.argv[1])) as opened:
        asyncio.run(application(opened, int(sys.argv[2]), os.environ[PASSWORD_VARIABLE]).run())
