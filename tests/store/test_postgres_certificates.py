"""Resets and certificates on PostgreSQL: one chain for two gateways, and earlier resets that are carried over."""

import asyncio
import json
from functools import partial
from pathlib import Path

from gateway.domain import certificate_check, commands, devices, grants
from gateway.models.devices import RegisterDevice
from gateway.store import Context, Store, Tx, certificate_sql, command_sql, key_sql
from gateway.store.postgres.steps import STEPS
from tests.support.postgres import database

RESETS = 12
FACTS = "SELECT command_id, outcome, requested_by, serial_number, finished_at, generation_before FROM resets ORDER BY 1"


def _ended(tx: Tx, project_id: str, serial: str) -> str:
    """A device whose reset was cancelled; the first one's is left open."""
    device, _ = devices.register(tx, project_id, RegisterDevice(serial_number=serial), "key_1")
    devices.bind(tx, project_id, device.id, "eu_1", "key_1")
    devices.reset(tx, project_id, device.id, "key_1")
    (command,) = command_sql.open_of_device(tx, device.pk)
    if serial != "SN-0":
        commands.cancel(tx, device, command.id, "key_1", taken_in=True)
    return command.id


async def test_two_gateways_write_one_chain(tmp_path: Path) -> None:
    """Resets that end at once through both have numbers without a gap, each with the digest of the one before."""
    address = database(tmp_path)
    async with Store(address, Context()) as one, Store(address, Context()) as other:
        project_id = await one.write(lambda tx: key_sql.create_project(tx, "ward"))
        await one.write(grants.ensure_key)
        await asyncio.gather(
            *(
                (one, other)[number % 2].write(partial(_ended, project_id=project_id, serial=f"SN-{number + 1}"))
                for number in range(RESETS)
            )
        )
        rows = await one.read(lambda view: certificate_sql.page(view, project_id, after=0, limit=99))
        published = await one.read(grants.published_keys)
    keys = certificate_check.keys(json.dumps({"keys": [key.model_dump() for key in published]}))
    (found,) = certificate_check.check([row.jws for row in rows], keys)
    assert (found.first, found.last, found.certificates) == (1, RESETS, RESETS)


async def test_earlier_resets_are_carried_over(tmp_path: Path) -> None:
    """The step finds in commands and events what it can of each; an ended one gets no certificate."""
    (carry_over,) = (each for each in STEPS["p031_resets"] if each.startswith("INSERT"))

    def again(tx: Tx) -> None:
        for table in ("certificates", "resets"):
            tx.run(f"DELETE FROM {table}")  # noqa: S608 - ours
        tx.run(carry_over)

    async with Store(database(tmp_path), Context()) as store:
        project_id = await store.write(lambda tx: key_sql.create_project(tx, "ward"))
        for number in range(3):
            await store.write(partial(_ended, project_id=project_id, serial=f"SN-{number}"))
        before = await store.read(lambda view: [tuple(row) for row in view.all(FACTS)])
        await store.write(again)
        assert await store.read(lambda view: [tuple(row) for row in view.all(FACTS)]) == before
        assert [row[1] for row in before] == [None, "cancelled", "cancelled"]
