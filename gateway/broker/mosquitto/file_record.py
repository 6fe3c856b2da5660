"""Record in the registry of the password file that the gateway wrote last for a broker.

The devices of the file with this stamp are as in the registry, but for those that the outbox names. A change of access
marks a row in its own transaction. The row goes when the broker has read a file with the change. So a start reads the
marked devices, and not the fleet.

The record is noted after the file has its name. Where it does not fit the file, the whole file is compared. That is so
when the gateway was killed between the two, and when another program changed the file or put an old one back. It is
also so after an older gateway, and in a new epoch.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from gateway.broker.mosquitto.password_lines import MISSING, Stamp
from gateway.store import broker_sql, epoch_sql, key_sql

if TYPE_CHECKING:
    from gateway.store import Tx, View


def known(view: View, broker: int) -> Stamp | None:
    """Return the stamp of the file that was noted in this epoch, or None."""
    stored = broker_sql.fact(view, broker, broker_sql.FILE_RECORD)
    epoch, *stamp = json.loads(stored) if stored else (None,)
    if len(stamp) != len(MISSING) or epoch != key_sql.meta(view, epoch_sql.EPOCH_ID):
        return None
    inode, changed, size = stamp
    return inode, changed, size


def note(tx: Tx, broker: int, stamp: Stamp) -> None:
    """Note the file that was written, before the rows of its changes are dropped."""
    stored = json.dumps([key_sql.meta(tx, epoch_sql.EPOCH_ID), *stamp])
    broker_sql.set_fact(tx, broker, broker_sql.FILE_RECORD, stored)
