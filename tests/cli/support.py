"""The command line inside the test's process, each on a separate data directory."""

import json
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.store import open_database


@dataclass(frozen=True)
class CliOutput:
    """What a command printed."""

    out: str
    err: str

    @property
    def rows(self) -> list[list[str]]:
        """The cells of a table, its heading left out; cells are two spaces apart."""
        return [[cell for cell in line.split("  ") if cell] for line in self.out.splitlines()[1:]]


class Cli:
    """Runs commands on one data directory."""

    def __init__(self, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.data_dir = data_dir
        self._capsys = capsys

    def __call__(self, *arguments: str, code: int = 0) -> CliOutput:
        """Run a command that has to end with this code."""
        self._capsys.readouterr()
        ended = main([*arguments, "--data-dir", str(self.data_dir)])
        said = CliOutput(*self._capsys.readouterr())
        assert ended == code, f"{ended}: {said.out}{said.err}"
        return said

    def json(self, *arguments: str) -> Any:
        """What a command prints for machines."""
        return json.loads(self(*arguments, "--json").out)

    def json_of(self, *arguments: str) -> Any:
        """What a command prints for machines that looks at no data directory."""
        self._capsys.readouterr()
        assert main([*arguments, "--json"]) == 0
        return json.loads(self._capsys.readouterr().out)

    def fails(self, *arguments: str, code: int) -> str:
        """What a command that looks at no data directory says when it ends with this code."""
        self._capsys.readouterr()
        assert main([*arguments]) == code
        return str(self._capsys.readouterr().err)

    def bound(self, serial: str = "BP-1", end_user_id: str = "eu_1") -> dict[str, Any]:
        """A device just bound."""
        device = self.json("devices", "register", serial)
        bound: dict[str, Any] = self.json("devices", "bind", device["id"], end_user_id)
        return bound

    def rename(self, device_id: str, name: str) -> None:
        """Give a device a name that the API would refuse, as one from before the rule for names."""
        with closing(open_database(self.data_dir)) as connection:
            connection.execute("UPDATE devices SET name = ? WHERE id = ?", (name, device_id))
            connection.commit()
