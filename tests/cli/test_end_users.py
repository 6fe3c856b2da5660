"""``gateway end-users``: an export that is whole or fails, an erasure that asks first, and their exit codes."""

import json
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.cli.api import ApiClient
from tests.cli.support import Cli


def test_an_export_is_printed_or_written_to_a_private_file(cli: Cli, tmp_path: Path) -> None:
    """The same lines; a file that is there is replaced only with --force."""
    cli.bound()
    printed = cli("end-users", "export", "eu_1")
    kinds = [json.loads(line)["kind"] for line in printed.out.splitlines()]
    assert kinds == ["end_user", "binding", "device", "event", "end"]
    assert "eu_1: 1 bindings, 1 devices, 1 events." in printed.err
    file = tmp_path / "eu_1.ndjson"
    cli("end-users", "export", "eu_1", "--output", str(file))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text().splitlines()[1:] == printed.out.splitlines()[1:]
    assert "--force" in cli("end-users", "export", "eu_1", "--output", str(file), code=5).err
    cli("end-users", "export", "eu_2", "--output", str(file), "--force")
    assert "eu_1" not in file.read_text()
    assert list(tmp_path.glob("*.part")) == []


def test_an_export_that_is_cut_off_fails(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1, and no file that could be taken for all."""
    cli.bound()
    whole = ApiClient.lines

    async def cut(api: ApiClient, path: str, headers: dict[str, str]) -> AsyncIterator[str]:
        async for line in whole(api, path, headers):
            if not line.startswith('{"kind":"end",'):
                yield line

    monkeypatch.setattr(ApiClient, "lines", cut)
    file = tmp_path / "eu_1.ndjson"
    assert "cut off" in cli("end-users", "export", "eu_1", "--output", str(file), code=1).err
    assert not file.exists()


def test_a_person_is_erased_after_a_question(cli: Cli) -> None:
    """Not without a terminal to ask on; not while a device is bound; then once, and a second time with counts of 0."""
    device = cli.bound()["id"]
    assert "add --yes" in cli("end-users", "erase", "eu_1", code=2).err
    assert "still has 1 device(s)" in cli("end-users", "erase", "eu_1", "--yes", code=5).err
    cli("devices", "set", device, "--metadata", "wearer=eu_1")
    cli("devices", "reset", device, "--yes")
    erased = cli("end-users", "erase", "eu_1", "--yes")
    assert [row[1] for row in erased.rows if row[0] == "bindings"] == ["1"]
    assert f"device.metadata of {device} names eu_1" in erased.err
    assert f"{device} has not executed its reset" in erased.err
    again = cli.json("end-users", "erase", "eu_1", "--yes")
    assert (again["status"], set(again["counts"].values())) == ("finished", {0})
    assert "'eu_' and 1 to 64" in cli("end-users", "erase", "ana", "--yes", code=1).err


def test_an_erasure_that_takes_long_is_waited_for(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """The counts are those of the whole, also when it ends between two calls."""
    monkeypatch.setattr("gateway.http.resources.end_users.WAIT_SECONDS", 0)
    device = cli.bound()["id"]
    cli("devices", "unbind", device)
    erased = cli.json("end-users", "erase", "eu_1", "--yes")
    assert (erased["status"], erased["counts"]["bindings"], erased["counts"]["events"]) == ("finished", 1, 2)
