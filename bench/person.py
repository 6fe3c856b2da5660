"""Measurement of one export and one erasure of a person with a long history: python -m bench.person [HEARTBEATS].

Run by hand. A quarter of the heartbeats is another person's on the same device, and a task writes beside it all the
time, to show how long an ordinary write waits.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from gateway.domain import erasures
from gateway.domain.person_export import PersonExport
from gateway.store import Purpose, Store, Tx, key_sql
from gateway.workers.erasures import Erasures
from tests.domain.support import World
from tests.support.long_history import EVERY_MS, lengthen

DEVICES = 4


def megabytes() -> float:
    """Return the most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def beside(store: Store, waits: list[float]) -> None:
    """Write all the time, and note how long each write took, in milliseconds."""
    while True:
        began = time.perf_counter()
        await store.write(partial(_touch), urgent=False)
        waits.append((time.perf_counter() - began) * 1_000)
        await asyncio.sleep(0.02)


def _touch(tx: Tx) -> None:
    key_sql.set_meta(tx, "touched_at", str(tx.now))


def show(what: str, began: float, waits: list[float], **more: Any) -> None:
    """Print a line of figures, and forget the waits."""
    waits.sort()
    figures = {
        "seconds": round(time.perf_counter() - began, 1),
        "most_mb": round(megabytes()),
        "write_ms_p50": round(waits[len(waits) // 2], 1),
        "write_ms_p99": round(waits[len(waits) * 99 // 100], 1),
        "write_ms_max": round(waits[-1], 1),
        **more,
    }
    sys.stdout.write(f"{what} {figures}\n")
    waits.clear()


async def measure(world: World) -> None:
    """Export, then erase."""
    async with Store(world.data_dir, world.context) as store:
        waits: list[float] = []
        writing = asyncio.create_task(beside(store, waits))
        await asyncio.sleep(2)
        show("idle", time.perf_counter() - 2, waits)
        began, size = time.perf_counter(), 0
        read: Any = partial(store.read, purpose=Purpose.SCANS)
        async for part in PersonExport(read, world.project_id, "eu_1", world.now).parts():
            size += len(part)
        show("export", began, waits, megabytes_written=round(size / 1e6))
        began = time.perf_counter()
        accepted = await store.write(
            partial(erasures.accept, project_id=world.project_id, end_user_id="eu_1", actor="cli")
        )
        show("accept", began, waits or [0.0])
        erased = await Erasures(store).wait(accepted, 86_400)
        show("erase", began, waits, counts=erased.counts)
        writing.cancel()


def main(heartbeats: int, folder: Path) -> None:
    """Make the registry and measure."""
    with World(folder) as world:
        for number in range(DEVICES):
            device_id = world.register(f"SN-{number}")
            for person, share in (("eu_2", heartbeats // 4), ("eu_1", heartbeats)):
                world.bind(device_id, person)
                world.now += share // DEVICES * EVERY_MS
                world.unbind(device_id)
                lengthen(folder, device_id, share // DEVICES)
        size = round((folder / "gateway.db").stat().st_size / 1e6)
        sys.stdout.write(f"file {size} MB; {round(megabytes())} MB held\n")
        asyncio.run(measure(world))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 5_000_000, Path(made))
