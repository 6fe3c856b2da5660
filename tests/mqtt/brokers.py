"""The brokers that the gateway is tried on: Mosquitto, RabbitMQ and the embedded one, with an administrator beside."""

from pathlib import Path
from types import TracebackType
from typing import Self

from gateway.broker.access_rules import Role
from gateway.broker.access_sync import AccessManager
from gateway.broker.authentication import authenticator
from gateway.broker.embedded.access import EmbeddedAccess
from gateway.broker.embedded.server import EmbeddedBroker
from gateway.broker.external.admissions import Admissions
from gateway.broker.external.decisions import AuthDecisions
from gateway.broker.external.disconnect_clients import disconnector_of
from gateway.broker.external.endpoint import AuthEndpoint
from gateway.broker.external.session_sync import SessionSync
from gateway.broker.mosquitto.access import MosquittoAccess
from gateway.broker.mosquitto.password_entries import kept_entries, own_entry
from gateway.broker.mosquitto.password_file import PasswordFile
from gateway.broker.service_accounts import Accounts, ServiceAccount, service_accounts
from gateway.core.addresses import Address
from gateway.http.server.server import HttpServer
from gateway.mqtt.probe import ProbeTarget
from gateway.settings.broker_api import BrokerApi
from gateway.store import Store
from tests.support.auth_endpoint import PROBES, SECRET
from tests.support.mosquitto import GATEWAY_PASSWORD, Mosquitto
from tests.support.rabbitmq import RabbitMq

ADMIN_PASSWORD = "admin-password"
_ADMINS = ("admin", "other", "third")
_ADMIN_RULES = "".join(f"\nuser {name}\ntopic readwrite #\n" for name in _ADMINS)


class MosquittoUnderTest:
    """A Mosquitto; `kind` names the version of MQTT that the gateway speaks to it: `mosquitto-5`, `mosquitto-3.1.1`."""

    gateway_password = GATEWAY_PASSWORD

    def __init__(self, directory: Path, kind: str, settings: str = "") -> None:
        self.directory = directory
        self.version = kind.removeprefix("mosquitto-")
        users = {**dict.fromkeys(_ADMINS, ADMIN_PASSWORD), "doctor": PROBES.reader}
        self.mosquitto = Mosquitto(directory, users=users, settings=settings)

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.mosquitto.port

    async def __aenter__(self) -> Self:
        await self.mosquitto.__aenter__()
        await self.set_rights(self.mosquitto.files.acl.read_text())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.mosquitto.__aexit__(kind, error, trace)

    async def stop(self) -> None:
        """SIGTERM."""
        await self.mosquitto.stop()

    async def start(self, *, empty: bool = False) -> None:
        """Start it again; `empty`: as one that lost its disk."""
        if empty:
            await self.mosquitto.restart(forget_retained=True)
        else:
            await self.mosquitto.start()

    async def set_rights(self, rules: str) -> None:
        """Use these as its ACL file, plus everything for the administrators."""
        self.mosquitto.files.acl.write_text(f"{rules}{_ADMIN_RULES}")
        await self.mosquitto.apply_users()

    def access(self, store: Store) -> AccessManager:
        """The password file, kept by the gateway."""
        file = self.mosquitto.password_file
        own = {"gateway": own_entry(GATEWAY_PASSWORD, kept_entries(file).get("gateway"))}
        target = ProbeTarget(Address(self.mosquitto.host, self.mosquitto.port))
        passwords = PasswordFile(file, pid_file=self.mosquitto.pid_file, fixed=own)
        return MosquittoAccess(passwords, store, target, secret=GATEWAY_PASSWORD)


class EmbeddedUnderTest:
    """The embedded broker, with the authentication that the gateway gives it."""

    version = "3.1.1"
    gateway_password = GATEWAY_PASSWORD

    def __init__(self, directory: Path, store: Store) -> None:
        self.directory = directory
        self.port = 0
        self._runs = False
        self._known = authenticator(store, _accounts())
        self.broker = self._new()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """All that it held is gone."""
        if self._runs:
            self._runs = False
            await self.broker.__aexit__(None, None, None)

    async def start(self, *, empty: bool = False) -> None:
        """A new one on the same port; it is always empty."""
        if empty:
            await self.stop()
        self.broker = self._new()
        await self.broker.__aenter__()
        self._runs = True
        self.port = self.broker.port

    def access(self, store: Store) -> AccessManager:
        """Its live sessions."""
        return EmbeddedAccess(self.broker, store)

    def _new(self) -> EmbeddedBroker:
        return EmbeddedBroker(port=self.port, authenticate=self._known)


class RabbitMqUnderTest:
    """A RabbitMQ that asks the gateway; the node runs on when this ends."""

    version = "3.1.1"
    gateway_password = GATEWAY_PASSWORD

    def __init__(self, directory: Path, store: Store, node: RabbitMq) -> None:
        self.directory = directory
        self.node = node
        self.port = node.port
        self.admissions = Admissions()
        judge = AuthDecisions(store, _accounts(), self.admissions, own_id=store.context.rules.gateway_id)
        self._endpoint = HttpServer(AuthEndpoint(judge, SECRET), node.host, node.auth_port)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self, *, empty: bool = False) -> None:
        """Have the endpoint listen; the node itself is never empty of retained messages."""
        assert not empty, "a node of RabbitMQ takes too long to begin anew"
        await self._endpoint.__aenter__()

    async def stop(self) -> None:
        """The node cannot ask about clients any more."""
        await self._endpoint.__aexit__(None, None, None)

    def access(self, store: Store) -> AccessManager:
        """Its live sessions, by its API."""
        return SessionSync(store, self.admissions, disconnector_of(BrokerApi.parse(self.node.api_url), None))


def _accounts() -> Accounts:
    """Those of the gateway, and the administrators of the tests."""
    admins = {name: ServiceAccount(Role.GATEWAY, ADMIN_PASSWORD) for name in _ADMINS}
    return {**service_accounts(GATEWAY_PASSWORD, PROBES), **admins}


Broker = MosquittoUnderTest | EmbeddedUnderTest | RabbitMqUnderTest
