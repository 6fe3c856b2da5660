"""Bare ingest into PostgreSQL, the floor there: the minimum that stores heartbeats durably, without any rules.

``python -m bench.bare_ingest DATABASE BROKER_PORT COUNT`` reads the broker's password from the environment, and the ids
of the devices from a line. It takes so many messages from ``mosquitto_sub``. What has arrived goes into a table of the
history by COPY, and the newest state of each device by one UPDATE; then it commits. Messages are acknowledged before
they are stored, and nothing is checked.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any, Final

import psycopg

from bench.broker import GATEWAY_USER, HOST
from bench.subject import FILTER, PASSWORD_VARIABLE
from broker_config import local

MOST: Final = 4_000
"""Most messages of a transaction."""
_READ_BYTES: Final = 1 << 20
_FIELDS: Final = (
    "sent_at", "battery_percent", "storage_used_mb", "storage_total_mb", "signal_strength_dbm", "firmware_version",
    "device_state", "pending_recordings", "flags",
)  # fmt: skip
_TYPES: Final = ("timestamptz", "numeric", "numeric", "numeric", "numeric", "text", "text", "bigint", "bigint")
_COLUMNS: Final = ", ".join(f"{name} {kind}" for name, kind in zip(_FIELDS, _TYPES, strict=True))
_ARRAYS: Final = ", ".join(f"%s::{kind}[]" for kind in ("text", *_TYPES))
_COPY: Final = f"COPY heartbeats (device, {', '.join(_FIELDS)}) FROM STDIN"
_UPDATE: Final = f"""UPDATE newest SET {", ".join(f"{name} = given.{name}" for name in _FIELDS)}
    FROM unnest({_ARRAYS}) AS given (device, {", ".join(_FIELDS)}) WHERE given.device = newest.device"""  # noqa: S608 - the names above


async def main(database: str, port: str, count: str) -> None:
    """Store so many messages."""
    with psycopg.connect(database) as connection:
        connection.execute(f"CREATE TABLE heartbeats (id bigserial PRIMARY KEY, device text NOT NULL, {_COLUMNS})")
        connection.execute(f"CREATE TABLE newest (device text PRIMARY KEY, {_COLUMNS}) WITH (fillfactor = 70)")
        devices = [(name,) for name in sys.stdin.readline().split()]
        connection.cursor().executemany("INSERT INTO newest (device) VALUES (%s)", devices)
        connection.commit()
        login = ("-u", GATEWAY_USER, "-P", os.environ[PASSWORD_VARIABLE])
        what = ("-h", HOST, "-p", port, *login, "-q", "1", "-t", FILTER, "-C", count, "-F", "%t %p")
        process = await asyncio.create_subprocess_exec(
            local.binary("mosquitto_sub"), *what, stdout=asyncio.subprocess.PIPE, limit=_READ_BYTES
        )
        assert process.stdout, "started with a pipe"
        rest = b""
        while some := await process.stdout.read(_READ_BYTES):
            *lines, rest = (rest + some).split(b"\n")
            for begin in range(0, len(lines), MOST):
                store(connection, lines[begin : begin + MOST])


def store(connection: psycopg.Connection[Any], lines: list[bytes]) -> None:
    """Store these messages, and commit."""
    newest: dict[str, tuple[Any, ...]] = {}
    with connection.cursor() as cursor:
        with cursor.copy(_COPY) as copy:
            for line in lines:
                topic, _, payload = line.partition(b" ")
                said = json.loads(payload)
                device = topic[8:-10].decode()
                row = (device, *map(said.get, _FIELDS))
                copy.write_row(row)
                newest[device] = row
        cursor.execute(_UPDATE, [list(column) for column in zip(*newest.values(), strict=True)])
    connection.commit()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
