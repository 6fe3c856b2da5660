"""A registry on disk with a store at work on it, and the verbs that change what a token opens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

from gateway.bootstrap import first_start
from gateway.domain import devices, grants
from gateway.models.devices import RegisterDevice
from gateway.settings.loading import Settings
from gateway.store import Context, Rules, Store, Tx, open_database, transact
from tests.support.mqtt_password import mqtt_password_of

GATEWAY_ID = "gw_test"
ACTOR = "key_test"


@dataclass(frozen=True)
class Bound:
    """A bound device: its id, its row, its token."""

    id: str
    pk: int
    token: str

    @property
    def mqtt_password(self) -> str:
        """What it tells the broker."""
        return mqtt_password_of(self.token)


class Registry:
    """The verbs, each in a separate transaction."""

    def __init__(self, store: Store, project_id: str) -> None:
        self.store = store
        self.project_id = project_id

    async def bound(self, serial: str) -> Bound:
        """Register a device and bind it."""
        return await self.store.write(lambda tx: self._bound(tx, serial))

    def _bound(self, tx: Tx, serial: str) -> Bound:
        asked = RegisterDevice(serial_number=serial)
        device, _ = devices.register(tx, self.project_id, asked, ACTOR)
        binding = devices.bind(tx, self.project_id, device.id, "eu_1", ACTOR)
        return Bound(device.id, device.pk, binding.device_token)

    async def bound_again(self, device: Bound) -> Bound:
        """Bind it again, to another end user."""
        binding = await self.store.write(lambda tx: devices.bind(tx, self.project_id, device.id, "eu_2", ACTOR))
        return Bound(device.id, device.pk, binding.device_token)

    async def unbind(self, device: Bound) -> None:
        """Unbind it: its token is revoked."""
        await self.store.write(lambda tx: devices.unbind(tx, self.project_id, device.id, ACTOR))

    async def reset(self, device: Bound) -> None:
        """Reset it: its token is good for its reset alone."""
        await self.store.write(lambda tx: devices.reset(tx, self.project_id, device.id, ACTOR))


@asynccontextmanager
async def registry(directory: Path) -> AsyncIterator[Registry]:
    """A new registry with one project."""
    context = Context(rules=Rules(gateway_id=GATEWAY_ID))
    with closing(open_database(directory / "data")) as database:
        transact(database, context, grants.ensure_key)
    _, project_id = first_start(Settings(data_dir=directory / "data", gateway_id=GATEWAY_ID))
    async with Store(directory / "data", context) as store:
        yield Registry(store, project_id)
