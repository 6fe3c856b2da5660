"""`gateway serve` as a process, found by what it prints."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.bootstrap import first_start
from gateway.cli.keys import on_registry
from gateway.domain import administration
from gateway.settings.loading import load
from gateway.store.event_sql import CLI
from tests.e2e.program import Program, script
from tests.support.ports import free_port

_READY = re.compile(
    r"HTTP  (?P<url>https?://\S+)\n  MQTT  mqtts?://(?P<host>[\w.]+):(?P<port>\d+) .*\n  data ", re.MULTILINE
)
_TRIES = 10


class GatewayProcess(Program):
    """One gateway on one data directory. It keeps its addresses when it is started again, as in the field."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        keep_ports: bool = True,
        environment: Mapping[str, str] | None = None,
        by: tuple[str, ...] = (),
    ) -> None:
        """`by`: the program, with its options, that is to start it."""
        self.data = folder / "data"
        self.options = options
        self._by = by
        self._http, self._mqtt = (_address(keep_ports=keep_ports) for _ in range(2))
        self._keep_ports = keep_ports
        super().__init__(folder, "gateway", *self._transport(), environment=environment)
        self.url = self.host = ""
        self.port = 0

    def _transport(self) -> tuple[str, ...]:
        where = ("--data-dir", str(self.data), "--http", self._http, "--mqtt", self._mqtt)
        return (*self._by, script("gateway"), "serve", *where, *self.options)

    async def start(self) -> None:
        """Start it and wait until it says that it is ready; where it is then stands in `url`, `host` and `port`."""
        for _ in range(_TRIES):
            await super().start()
            await self._ready_or_gone()
            if self.runs or "cannot listen" not in self.err or self.url:
                break
            self._http, self._mqtt = (_address(keep_ports=self._keep_ports) for _ in range(2))
            self._command = self._transport()
        found = _READY.search(self.out)
        assert found, f"the gateway did not come up; stdout:\n{self.out}\nstderr:\n{self.err}"
        self.url, self.host, self.port = found["url"], found["host"], int(found["port"])

    async def spawn(self) -> None:
        """Start the process and wait for nothing: it may be killed while it starts."""
        await super().start()

    async def _ready_or_gone(self) -> None:
        try:
            await self.said("  data ")
        except AssertionError:
            if self.runs:
                raise

    async def restart(self) -> None:
        """Start it again after its end."""
        assert not self.runs, "stop or kill it first"
        await self.start()

    @property
    def settings(self) -> dict[str, str]:
        """Its options by the name of the setting; of one that is a flag, `true`."""
        given = " ".join(self.options).removeprefix("--").split(" --") if self.options else []
        words = (each.partition(" ") for each in given)
        return {name.replace("-", "_"): text or "true" for name, _, text in words}

    def write_settings(self) -> Path:
        """Put its options into a settings file, by which it goes from its next start on; the file."""
        lines = [f"{name} = {json.dumps(_value(text))}" for name, text in self.settings.items()]
        file = self.data / "gateway.toml"
        file.write_text("\n".join(lines) + "\n")
        file.chmod(0o600)  # it may hold the broker's password
        self.options = ()
        self._command = self._transport()
        return file

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The events of this name that it has logged since its start."""
        lines = [json.loads(line) for line in self.err.splitlines() if line.startswith("{") and line.endswith("}")]
        return [line for line in lines if line["event"] == event]

    def new_key(self, *scopes: str) -> str:
        """An API key for the first project, made beside the running gateway as `gateway keys create` makes it.

        A function call does that here: the command takes 0.4 s of CPU, and has tests (`test_cli.py`, `tests/cli`).
        """
        settings = load({"data_dir": str(self.data), "database": self.settings.get("database", "none")}, {}).settings
        _, project = first_start(settings)
        _, key = on_registry(
            settings.registry, lambda tx: administration.create_key(tx, project, "e2e", CLI, scopes=scopes)
        )
        return key


def _value(text: str) -> str | int | bool:
    return True if text == "true" else int(text) if text.isdigit() else text


def _address(*, keep_ports: bool) -> str:
    return f"127.0.0.1:{free_port() if keep_ports else 0}"
