"""What people write to get heartbeats into SQLite: ``python -m bench.peer NAME DATABASE PORT``.

The broker's password is in the environment. Each validates with the gateway's own model and stores the newest state and
a row of history with ``synchronous=FULL``; what it does beside that is as its documentation shows it. It says ``ready``
when it has subscribed.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Final

import aiomqtt

from bench.broker import GATEWAY_USER, HOST
from bench.subject import PASSWORD_VARIABLE
from broker_config import local
from gateway.model import Heartbeat

FILTER: Final = "devices/+/heartbeat"
_BATCH: Final = 500
_IDLE_SECONDS: Final = 0.02


def _open(path: str) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None)
    for statement in (
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = FULL",
        "CREATE TABLE health (device TEXT PRIMARY KEY, state TEXT NOT NULL) WITHOUT ROWID",
        "CREATE TABLE heartbeats (id INTEGER PRIMARY KEY, device TEXT NOT NULL, sent_at TEXT, state TEXT NOT NULL)",
    ):
        database.execute(statement)
    return database


def _store(database: sqlite3.Connection, messages: Iterable[tuple[str, bytes]]) -> None:
    """One transaction."""
    database.execute("BEGIN IMMEDIATE")
    for topic, payload in messages:
        beat, device = Heartbeat.model_validate_json(payload), topic.split("/")[1]
        state = payload.decode()
        database.execute("INSERT OR REPLACE INTO health (device, state) VALUES (?, ?)", (device, state))
        database.execute(
            "INSERT INTO heartbeats (device, sent_at, state) VALUES (?, ?, ?)", (device, str(beat.sent_at), state)
        )
    database.execute("COMMIT")


async def aiomqtt_loop(database: sqlite3.Connection, port: int, password: str) -> None:
    """The loop of aiomqtt's documentation, a transaction per message; aiomqtt acknowledges when it queues."""
    async with aiomqtt.Client(HOST, port, username=GATEWAY_USER, password=password, identifier=GATEWAY_USER) as client:
        await client.subscribe(FILTER, qos=1)
        print("ready", flush=True)  # noqa: T201 - the benchmark reads it
        async for message in client.messages:
            assert isinstance(message.payload, bytes)
            _store(database, [(str(message.topic), message.payload)])


async def batcher(database: sqlite3.Connection, port: int, password: str) -> None:
    """``mosquitto_sub`` into a program that commits what is there; it acknowledges before anything is stored."""
    command = ("-h", HOST, "-p", str(port), "-u", GATEWAY_USER, "-P", password, "-q", "1", "-t", FILTER, "-F", "%t %p")
    process = await asyncio.create_subprocess_exec(
        local.binary("mosquitto_sub"), *command, stdout=asyncio.subprocess.PIPE, limit=1 << 22
    )
    assert process.stdout
    print("ready", flush=True)  # noqa: T201 - the same
    try:
        while lines := await _lines(process.stdout):
            _store(
                database, [(topic.decode(), payload) for topic, _, payload in (each.partition(b" ") for each in lines)]
            )
    finally:
        process.terminate()
        await process.wait()


async def _lines(stream: asyncio.StreamReader) -> list[bytes]:
    """A line, and those that follow at once."""
    lines = [await stream.readline()]
    try:
        while len(lines) < _BATCH:
            lines.append(await asyncio.wait_for(stream.readline(), _IDLE_SECONDS))
    except TimeoutError:
        pass
    return [line.rstrip(b"\n") for line in lines if line]


PEERS: Final[dict[str, Callable[[sqlite3.Connection, int, str], object]]] = {
    "aiomqtt-loop": aiomqtt_loop,
    "mosquitto_sub-batcher": batcher,
}

if __name__ == "__main__":
    Path(sys.argv[2]).parent.mkdir(parents=True, exist_ok=True)
    with closing(_open(sys.argv[2])) as opened:
        asyncio.run(PEERS[sys.argv[1]](opened, int(sys.argv[3]), os.environ[PASSWORD_VARIABLE]))  # type: ignore[arg-type]
