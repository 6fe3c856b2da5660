"""The two ways in which the gateway steers who may connect, each on the virtual broker."""

import asyncio
import base64
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from gateway.broker.access_rules import Role
from gateway.broker.embedded.server import EmbeddedBroker
from gateway.broker.embedded.session import ClientIdentity
from gateway.broker.mosquitto.access import MosquittoAccess
from gateway.broker.mosquitto.password_draft import PasswordDraft
from gateway.broker.mosquitto.password_file import BrokerSignalError, PasswordFile, password_entry
from gateway.broker.mosquitto.password_lines import MISSING, PasswordLines, Stamp
from gateway.broker.mosquitto.reload_probe import ReloadProbe
from gateway.broker.service_accounts import GATEWAY_USER
from gateway.core.addresses import Address
from gateway.core.credentials import broker_entry
from gateway.mqtt.probe import ProbeTarget
from gateway.store import Store
from tests.simulation.broker import Broker
from tests.simulation.gateway_process import KillableProcess
from tests.simulation.gateway_session import GATEWAY_PASSWORD

RELOAD_SECONDS = 0.15
_SALT = bytes(12)


class VirtualEmbedded(EmbeddedBroker):
    """what the access syncer asks of the embedded broker."""

    def __init__(self, broker: Broker, process: KillableProcess) -> None:  # nothing to listen on: no super call
        self._virtual = broker
        self._process = process

    def sessions(self) -> dict[str, ClientIdentity]:
        """Who is connected."""
        return self._virtual.live()

    def kept_sessions(self) -> dict[str, ClientIdentity]:
        """The same: no integrator's session is simulated."""
        return self._virtual.live()

    async def cut(self, client_id: str) -> bool:
        """Close the session, and drop what waits for it."""
        self._process.seam("cut")
        return self._virtual.cut(client_id, forget=True)


class VirtualDraft(PasswordDraft):
    """The next entries of devices."""

    def __init__(self) -> None:  # no file: no super call
        self.entries: dict[str, str] = {}

    @property
    def stamp(self) -> Stamp:
        """There is no file."""
        return MISSING

    def same_accounts(self, stamp: Stamp | None) -> None:
        """Nothing is known of a file that is not there."""

    def add_devices(self, entries: Iterable[tuple[str, str]]) -> None:
        """Add all devices."""
        self.entries = dict(entries)

    def finish(self, accounts: Mapping[str, str]) -> PasswordLines:  # noqa: ARG002 - the real one's
        """Add nothing: the gateway's account is always let in."""
        return PasswordLines(None)


class PasswordTable(PasswordFile):
    """Mosquitto's password file, and what the broker has read of it; it outlives the gateway."""

    def __init__(self, broker: Broker) -> None:
        super().__init__(Path("/nowhere/passwords"), pid_file=Path("/nowhere/pid"), fixed={})
        self._broker = broker
        self._written: dict[str, str] = {}
        self._in_force: dict[str, str] = {}
        self.token_of: dict[str, int] = {}

    @contextmanager
    def draft(self, accounts: Mapping[str, str]) -> Iterator[PasswordDraft]:  # noqa: ARG002 - the real one's
        """Yield the next content."""
        yield VirtualDraft()

    def put(self, draft: PasswordDraft) -> bool:
        """Write the file."""
        assert isinstance(draft, VirtualDraft)
        self._written = draft.entries
        return True

    def load_entries(self) -> None:
        """The broker reads it, and cuts each client whose entry is gone or changed; their sessions stay."""
        previous, self._in_force = self._in_force, dict(self._written)
        for name, entry in previous.items():
            if self._in_force.get(name) != entry:
                self._broker.cut(name, forget=False)

    def knows(self, name: str) -> bool:
        """Return whether the broker has an entry of this name in force."""
        return name in self._in_force

    async def admit(self, client_id: str, username: str, password: str) -> ClientIdentity | None:
        """Whether the table lets them in."""
        if username == GATEWAY_USER:
            return ClientIdentity(Role.GATEWAY, GATEWAY_USER, None) if password == GATEWAY_PASSWORD else None
        entry = self._in_force.get(username)
        if entry is None or client_id != username or not _matches(entry, password):
            return None
        return ClientIdentity(Role.DEVICE, username, self.token_of.get(entry))


def _matches(entry: str, password: str) -> bool:
    return broker_entry(password, base64.b64decode(entry.split("$")[2])) == entry


class VirtualReloadProbe(ReloadProbe):
    """Signals the virtual broker."""

    def __init__(self, table: PasswordTable, broker: Broker, process: KillableProcess) -> None:
        self._table = table
        self._virtual = broker
        self._process = process

    def account(self, *, known: str | None = None) -> dict[str, str]:  # noqa: ARG002 - the real one's
        """The entry for the next file."""
        return {"gateway_sentinel": password_entry("sentinel", _SALT)}

    async def taken_up(self) -> None:
        """Have the broker read the file, and return when it has."""
        self._process.seam("signal")
        await asyncio.sleep(RELOAD_SECONDS)
        self._process.seam("signal")
        if not self._virtual.up:
            raise BrokerSignalError("the broker is not there")
        self._table.load_entries()


class VirtualMosquitto(MosquittoAccess):
    """The gateway's own steering of Mosquitto, with the virtual file and signal."""

    def __init__(self, table: PasswordTable, broker: Broker, store: Store, process: KillableProcess) -> None:
        super().__init__(table, store, ProbeTarget(Address("127.0.0.1", 1883)))
        self._sentinel = VirtualReloadProbe(table, broker, process)
