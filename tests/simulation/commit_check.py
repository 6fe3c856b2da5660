"""Invariant 4: whether what is acknowledged to the broker is committed, judged by looking into the registry."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from device_sim.wire import milliseconds
from gateway.domain.messages import Message
from tests.simulation.model_state import Ghost

_TELLING = 50
"""So many characters of a refused payload tell it from others."""


def unkept(disk: sqlite3.Connection, ghost: Ghost, message: Message, arrived_at_commit: int) -> str | None:
    """What is missing in the registry of a message that is acknowledged now; ``None`` when nothing is."""
    levels = message.topic.split("/")
    device = disk.execute("SELECT pk FROM devices WHERE id = ?", (levels[1],)).fetchone()
    if device is None or not message.payload:
        return None
    body = json.loads(message.payload)
    if levels[-1] == "heartbeat":
        kept = _heartbeat_kept(disk, ghost, device["pk"], body, arrived_at_commit)
    elif levels[-1] == "ack":
        kept = _word_kept(disk, body)
    else:
        return None
    return None if kept or _refused(disk, message) else f"{message.topic}: {message.payload[:120].decode()}"


def _heartbeat_kept(
    disk: sqlite3.Connection, ghost: Ghost, device_pk: int, body: dict[str, Any], arrived_at_commit: int
) -> bool:
    """In the history; or the device had, at some commit since it arrived, no token whose heartbeats are stored."""
    sent_at = milliseconds(body["sent_at"])
    found = disk.execute("SELECT 1 FROM heartbeats WHERE device_pk = ? AND sent_at = ?", (device_pk, sent_at))
    if found.fetchone() is not None or "active" not in ghost.live_tokens(device_pk):
        return True
    return any(commit >= arrived_at_commit for commit in ghost.token_changes[device_pk])


def _word_kept(disk: sqlite3.Connection, body: dict[str, Any]) -> bool:
    """The command is as far as the device says, or final."""
    command = disk.execute("SELECT status FROM commands WHERE id = ?", (body["command_id"],)).fetchone()
    if command is None:
        return False
    behind = {"pending"} if body["status"] == "delivered" else {"pending", "delivered"}
    return command["status"] not in behind


def _refused(disk: sqlite3.Connection, message: Message) -> bool:
    rows = disk.execute("SELECT payload FROM refusals WHERE source = ?", (message.topic,)).fetchall()
    beginning = message.payload[:_TELLING].decode()
    return any(row["payload"].startswith(beginning) for row in rows)
