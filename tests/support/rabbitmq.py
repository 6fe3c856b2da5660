"""A real RabbitMQ with its MQTT plugin, started from `broker_config/rabbitmq.conf`, that asks a gateway under test.

It takes ten seconds to start, so one node serves all tests of a worker: each has the endpoint listen where the node
asks, and begins with `forget`. Node name, cookie, ports and data are its own; nothing collides with another node.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import httpx

import broker_config
from broker_config.local import free_port
from tests.support.auth_endpoint import SECRET

HOST = "127.0.0.1"
ADMIN, ADMIN_PASSWORD = "harness", "admin-password-of-rabbitmq"
GATEWAY_ADMIN, GATEWAY_ADMIN_PASSWORD = "gateway_admin", "gateway's/password"
OWN_QUEUES = "^mqtt-subscription-(dev_|integrator|home_assistant)"
"""With the rights that docs/other-brokers.md gives it."""
SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
PLUGINS = "[rabbitmq_mqtt,rabbitmq_auth_backend_http,rabbitmq_management].\n"
GUARD_SECONDS = 90.0
_STARTS = 5


class RabbitMqError(AssertionError):
    """The broker is missing or did not come up; holds its log."""


class RabbitMq:
    """One node in `directory`, which asks at `auth_port`; its API is at `api_url`, as the setting takes it."""

    host = HOST

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = self.api_port = self.auth_port = 0
        self._log = directory / "rabbitmq.log"
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        if not SERVER.exists():
            raise RabbitMqError("these tests need RabbitMQ: apt-get install rabbitmq-server")
        for _ in range(_STARTS):
            self._start()
            if self._came_up():
                return self
            self._end()
        raise RabbitMqError(f"RabbitMQ did not come up:\n{self.said()}")

    def __exit__(self, *_: object) -> None:
        self._end()

    @property
    def api_url(self) -> str:
        """As `broker_api_url` takes it."""
        return f"rabbitmq+http://{GATEWAY_ADMIN}:{quote(GATEWAY_ADMIN_PASSWORD, safe='')}@{HOST}:{self.api_port}"

    def said(self) -> str:
        """Its log."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def forget(self) -> None:
        """Close every connection and delete every queue, so that nothing of another test is left but retained ones."""
        with self.api() as api:
            for user in {each["user"] for each in api.get("/api/connections").json() if "user" in each}:
                api.delete(f"/api/connections/username/{user}")
            for queue in self.queues():
                api.delete(f"/api/queues/%2F/{queue}")

    def queues(self) -> set[str]:
        """The names of all queues."""
        with self.api() as api:
            found: list[dict[str, Any]] = api.get("/api/queues", params={"columns": "name"}).json()
        return {each["name"] for each in found}

    def connections(self, username: str) -> int:
        """How many connections this user has now."""
        with self.api() as api:
            return len(api.get(f"/api/connections/username/{username}").json())

    @contextlib.contextmanager
    def rights(self, queues: str) -> Iterator[None]:
        """Let the gateway's account delete these queues alone (a regular expression) while the block runs."""
        self._set_rights(queues)
        try:
            yield
        finally:
            self._set_rights(OWN_QUEUES)

    def _set_rights(self, queues: str) -> None:
        rights = {"configure": queues, "write": "", "read": ""}
        with self.api() as api:
            api.put(f"/api/permissions/%2F/{GATEWAY_ADMIN}", json=rights).raise_for_status()

    @contextlib.contextmanager
    def api(self) -> Iterator[httpx.Client]:
        """Its management API, as an administrator."""
        with httpx.Client(base_url=f"http://{HOST}:{self.api_port}", auth=(ADMIN, ADMIN_PASSWORD)) as client:
            yield client

    def _start(self) -> None:
        self.port, self.api_port, self.auth_port, mapper, distribution = (free_port(HOST) for _ in range(5))
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        environment = self._write(mapper, distribution)
        with self._log.open("wb") as log:
            for command in (["epmd", "-port", str(mapper), "-address", HOST], [str(SERVER)]):
                self._processes.append(
                    subprocess.Popen(
                        command,
                        env=environment,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                    )
                )

    def _write(self, mapper: int, distribution: int) -> dict[str, str]:
        """Its files; the environment that has it use them and nothing of this machine's own RabbitMQ."""
        here, cookie = self.directory, self.directory / ".erlang.cookie"
        values = {
            "listen": f"{HOST}:{self.port}",
            "api_port": str(self.api_port),
            "url": f"http://{HOST}:{self.auth_port}",
            "secret": SECRET,
            "amqp": f"listeners.tcp = none\nload_definitions = {here / 'definitions.json'}",
        }
        (here / "rabbitmq.conf").write_text(broker_config.filled("rabbitmq.conf", values))
        (here / "definitions.json").write_text(json.dumps(_definitions()))
        (here / "enabled_plugins").write_text(PLUGINS)
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("RABBITMQ_")},
            "HOME": str(here),
            "ERL_EPMD_PORT": str(mapper),
            "ERL_EPMD_ADDRESS": HOST,
            "RABBITMQ_NODENAME": f"gateway_test_{os.getpid()}@localhost",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(here / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(here / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(here / "mnesia"),
            "RABBITMQ_LOG_BASE": str(here),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(here / "pid"),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }

    def _came_up(self) -> bool:
        """Wait until it has started, or ended."""
        until = time.monotonic() + GUARD_SECONDS
        while time.monotonic() < until:
            if "Server startup complete" in self.said():
                return _accepts(self.port) and _accepts(self.api_port)
            if self._processes[-1].poll() is not None:
                return False
            time.sleep(0.1)
        raise RabbitMqError(f"RabbitMQ hangs:\n{self.said()}")

    def _end(self) -> None:
        """At once: its data is not needed."""
        processes, self._processes = self._processes, []
        for process in reversed(processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _definitions() -> dict[str, object]:
    """The account of the gateway at the API, as `rabbitmqctl` makes it in docs/other-brokers.md, and our own."""
    return {
        "users": [_user(ADMIN, ADMIN_PASSWORD), _user(GATEWAY_ADMIN, GATEWAY_ADMIN_PASSWORD)],
        "vhosts": [{"name": "/"}],
        "permissions": [
            {"user": ADMIN, "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"},
            {
                "user": GATEWAY_ADMIN,
                "vhost": "/",
                "configure": OWN_QUEUES,
                "write": "",
                "read": "",
            },
        ],
    }


def _user(name: str, password: str) -> dict[str, object]:
    salt = secrets.token_bytes(4)
    digest = hashlib.sha256(salt + password.encode()).digest()
    return {
        "name": name,
        "password_hash": base64.b64encode(salt + digest).decode(),
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": ["administrator"],
    }


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=GUARD_SECONDS):
        return True
    return False
