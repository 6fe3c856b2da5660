"""A process that registers devices and says which were answered, until it is killed. Argument: the data directory."""

import asyncio
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

from gateway.domain import devices
from gateway.models.devices import RegisterDevice
from gateway.store import Context, Store, Tx, key_sql


async def _register_for_ever(store: Store, project_id: str, numbers: Iterator[int]) -> None:
    for number in numbers:
        serial = f"SN-{number}"

        def reset_at_once(tx: Tx, serial: str = serial) -> str:
            device, _ = devices.register(tx, project_id, RegisterDevice(serial_number=serial), "key_1")
            devices.bind(tx, project_id, device.id, "eu_1", "key_1")
            devices.reset(tx, project_id, device.id, "key_1")
            return serial

        sys.stdout.write(await store.write(reset_at_once) + "\n")
        sys.stdout.flush()


async def _main(data_dir: Path) -> None:
    async with Store(data_dir, Context()) as store:
        project_id = await store.write(lambda tx: key_sql.create_project(tx, "ward"))
        numbers = itertools.count()
        await asyncio.gather(*(_register_for_ever(store, project_id, numbers) for _ in range(8)))


asyncio.run(_main(Path(sys.argv[1])))
