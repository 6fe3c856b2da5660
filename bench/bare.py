"""Bare handler, the floor of a reset: the minimum that stores ``POST …/reset`` durably and publishes the command.

``python -m bench.bare DATABASE BROKER_PORT`` reads the broker's password from the environment. It consists of
Starlette, one durable transaction, and one awaited publish with aiomqtt. It has no keys, no registry and no rules. The
database is a file of SQLite (``synchronous=FULL``) or the URL of one on PostgreSQL, where each request has a connection
of a pool. It prints ``HTTP`` and its port when it is ready, and runs until SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from typing import Final

import aiomqtt
import psycopg
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from bench.broker import GATEWAY_USER, HOST
from bench.subject import PASSWORD_VARIABLE

_PAYLOAD: Final = b'{"type":"factory_reset"}'.ljust(620)
"""A payload as long as a command of the gateway with its grant."""
_CONNECTIONS: Final = 10
"""Connections to PostgreSQL. More would only wait for the processor."""
_INSERT: Final = "INSERT INTO resets VALUES (%s, 'pending') ON CONFLICT (device_id) DO UPDATE SET status = 'pending'"


async def main(database: str, broker_port: int) -> None:
    """Serve until SIGTERM."""
    password = os.environ[PASSWORD_VARIABLE]
    with socket.create_server((HOST, 0)) as listener:
        no_delay = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]  # or one publish waits 40 ms for another's TCP ACK
        async with (
            (_on_postgresql if database.startswith("postgresql:") else _on_sqlite)(database) as store,
            aiomqtt.Client(
                HOST, broker_port, username=GATEWAY_USER, password=password, socket_options=no_delay
            ) as broker,
        ):
            broker.pending_calls_threshold = 1_000  # or it warns of every publish beside ten others
            print("HTTP", listener.getsockname()[1], flush=True)  # noqa: T201 - the benchmark reads it
            config = uvicorn.Config(_app(store, broker), log_level="warning", access_log=False)
            await uvicorn.Server(config).serve(sockets=[listener])


def _app(store: Callable[[str], Awaitable[None]], broker: aiomqtt.Client) -> Starlette:
    async def reset(request: Request) -> JSONResponse:
        device_id = request.path_params["device_id"]
        await store(device_id)
        await broker.publish(f"devices/{device_id}/commands/factory_reset", _PAYLOAD, qos=1, retain=True)
        return JSONResponse({"id": device_id, "status": "unbound"})

    return Starlette(routes=[Route("/v1/devices/{device_id}/reset", reset, methods=["POST"])])


@asynccontextmanager
async def _on_sqlite(database: str) -> AsyncIterator[Callable[[str], Awaitable[None]]]:
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE resets (device_id TEXT PRIMARY KEY, status TEXT NOT NULL) STRICT")

        async def store(device_id: str) -> None:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT OR REPLACE INTO resets (device_id, status) VALUES (?, 'pending')", (device_id,))
            connection.execute("COMMIT")

        yield store


@asynccontextmanager
async def _on_postgresql(database: str) -> AsyncIterator[Callable[[str], Awaitable[None]]]:
    connections: asyncio.Queue[psycopg.AsyncConnection[object]] = asyncio.Queue()
    for _ in range(_CONNECTIONS):
        connections.put_nowait(await psycopg.AsyncConnection.connect(database, autocommit=True))
    connection = await connections.get()
    await connection.execute("CREATE TABLE resets (device_id text PRIMARY KEY, status text NOT NULL)")
    connections.put_nowait(connection)

    async def store(device_id: str) -> None:
        connection = await connections.get()
        try:
            await connection.execute(_INSERT, (device_id,))  # autocommit: a transaction in one round trip
        finally:
            connections.put_nowait(connection)

    yield store
    while not connections.empty():
        await connections.get_nowait().close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
