"""What the registry holds before a run: projects, keys, a device of another project, and the shelf."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.core.ids import Ids
from gateway.domain import devices, epoch, grants
from gateway.models.devices import RegisterDevice
from gateway.store import Context, Tx, account_sql, key_sql, transact
from tests.simulation.disk import drain_ledger
from tests.simulation.gateway_host import RULES

if TYPE_CHECKING:
    from tests.simulation.world import World


@dataclass(frozen=True)
class FirstStart:
    """Project and key of the operators, a device of another project, the key for jobs, and the devices on the shelf."""

    project_id: str
    key: str
    foreign_device_id: str
    job_key_id: str
    job_key: str
    shelf_ids: tuple[str, ...]


def first_start(world: World) -> FirstStart:
    """Write all of it in one transaction."""
    entropy, configuration = world.rng("first start").randbytes, world.plan.configuration
    context = Context(RULES, clock=world.clock, entropy=entropy, ids=Ids(entropy))

    def write(tx: Tx) -> FirstStart:
        epoch.settle(tx, None)
        grants.ensure_key(tx)
        project_id, others = key_sql.create_project(tx, "ward"), key_sql.create_project(tx, "another ward")
        foreign_pk, foreign_id = _bound(tx, others, "SN-0", "eu_others")
        world.model.foreign_devices.add(foreign_pk)
        key = key_sql.create(tx, project_id, "back end")[1]
        if configuration.mirrored and world.plan.seed % 2:
            account_sql.create(tx, "integrator_ward", project_id)
        job_key_id, job_key = key_sql.create(tx, project_id, "fleet team")
        shelf = tuple(_bound(tx, project_id, f"SHELF-{each}", "eu_shelf")[1] for each in range(configuration.shelf))
        return FirstStart(project_id, key, foreign_id, job_key_id, job_key, shelf)

    made = transact(world.disk, context, write)
    drain_ledger(world.disk)  # what was there before the run is no part of it
    return made


def _bound(tx: Tx, project_id: str, serial: str, end_user_id: str) -> tuple[int, str]:
    device, _ = devices.register(tx, project_id, RegisterDevice(serial_number=serial), "key_others")
    devices.bind(tx, project_id, device.id, end_user_id, "key_others")
    return device.pk, device.id
