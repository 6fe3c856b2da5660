"""Put a backup in the place of the registry, and begin a new epoch with it (contract, section 1)."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway import epoch
from gateway.errors import StoreError
from gateway.store import DATABASE_NAME, View, backup, epochs
from gateway.store.database import connect
from gateway.store.position_file import read_position

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.store import Tx


@dataclass(frozen=True)
class Restored:
    """Where the old registry lies now, if there was one, and the epoch that began."""

    old_registry: Path | None
    epoch: epoch.Epoch


def restore(data_dir: Path, source: Path) -> Restored:
    """Put a copy in the place of the registry.

    Raises:
        AlreadyRunningError: a gateway runs on the data directory.
        NotFoundError, InvalidRequestError: ``source`` is not there, or not good.
        StoreError: the directory cannot be written, or another program has the registry open.
    """
    began: list[epoch.Epoch] = []

    def prepare(tx: Tx) -> None:
        began.append(epoch.begin(tx, epoch.RESTORED, known=_issued(data_dir)))

    aside = backup.restore(data_dir, source, prepare)
    return Restored(aside, began[-1])


def _issued(data_dir: Path) -> int:
    """Return the highest generation that the replaced registry is known to have issued.

    It may be damaged, and often is: then the file beside it tells.
    """
    noted = epoch.known_by(read_position(data_dir))
    try:
        with closing(connect(data_dir / DATABASE_NAME, read_only=True)) as connection:
            return max(noted, epochs.highest_generation(View(connection)))
    except (StoreError, sqlite3.Error):
        return noted
