"""Common ways to store heartbeats in SQLite, for comparison: ``python -m bench.peer NAME DATABASE PORT``.

The broker's password is in the environment. Each peer validates with the gateway's model and stores the newest state
and a row of history with ``synchronous=FULL``. The rest follows its documentation. It prints ``ready`` when it has
subscribed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import Callable, Coroutine, Iterable
from contextlib import closing, suppress
from typing import Final

import aiomqtt

from bench.broker import GATEWAY_USER, HOST
from bench.subject import FILTER, PASSWORD_VARIABLE
from broker_config import local
from gateway.models.heartbeats import Heartbeat

_BATCH: Final = 500
_IDLE_SECONDS: Final = 0.02


def open_database(path: str) -> sqlite3.Connection:
    """Return a new registry of a peer: the newest state of each device, and a row per heartbeat."""
    database = sqlite3.connect(path, isolation_level=None)
    for statement in (
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = FULL",
        "CREATE TABLE health (device TEXT PRIMARY KEY, state TEXT NOT NULL) WITHOUT ROWID",
        "CREATE TABLE heartbeats (id INTEGER PRIMARY KEY, device TEXT NOT NULL, sent_at TEXT, state TEXT NOT NULL)",
    ):
        database.execute(statement)
    return database


def store(database: sqlite3.Connection, messages: Iterable[tuple[str, bytes]]) -> None:
    """Validate these (topic, payload) and store them in one transaction."""
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
    """Run the loop of aiomqtt's documentation, a transaction per message. aiomqtt acknowledges when it queues."""
    async with aiomqtt.Client(HOST, port, username=GATEWAY_USER, password=password, identifier=GATEWAY_USER) as client:
        await client.subscribe(FILTER, qos=1)
        print("ready", flush=True)  # noqa: T201 - the benchmark reads it
        async for message in client.messages:
            assert isinstance(message.payload, bytes)
            store(database, [(str(message.topic), message.payload)])


async def batcher(database: sqlite3.Connection, port: int, password: str) -> None:
    """Pipe ``mosquitto_sub`` into batches of available lines. It acknowledges before anything is stored."""
    command = ("-h", HOST, "-p", str(port), "-u", GATEWAY_USER, "-P", password, "-q", "1", "-t", FILTER, "-F", "%t %p")
    process = await asyncio.create_subprocess_exec(
        local.binary("mosquitto_sub"), *command, stdout=asyncio.subprocess.PIPE, limit=1 << 22
    )
    assert process.stdout
    print("ready", flush=True)  # noqa: T201 - the same
    try:
        while lines := await _lines(process.stdout):
            store(
                database, [(topic.decode(), payload) for topic, _, payload in (each.partition(b" ") for each in lines)]
            )
    finally:
        process.terminate()
        await process.wait()


async def _lines(stream: asyncio.StreamReader) -> list[bytes]:
    """Return a line, and the lines that are available at once after it."""
    lines = [await stream.readline()]
    try:
        while len(lines) < _BATCH:
            lines.append(await asyncio.wait_for(stream.readline(), _IDLE_SECONDS))
    except TimeoutError:
        pass
    return [line.rstrip(b"\n") for line in lines if line]


PEERS: Final[dict[str, Callable[[sqlite3.Connection, int, str], Coroutine[None, None, None]]]] = {
    "aiomqtt-loop": aiomqtt_loop,
    "mosquitto_sub-batcher": batcher,
}


async def main(name: str, database: str, port: int) -> None:
    """Run one peer until SIGTERM, and end its child processes."""
    running = asyncio.current_task()
    assert running
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    with closing(open_database(database)) as opened, suppress(asyncio.CancelledError):
        await PEERS[name](opened, port, os.environ[PASSWORD_VARIABLE])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
