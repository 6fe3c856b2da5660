"""The data directory as others may have prepared it: what they could change is refused, no link is followed."""

import os
import stat
from pathlib import Path

import pytest

from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.program import run, script, started

NOBODY = 65_534
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
ANYWHERE = ("--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0")


def names(data: Path) -> set[str]:
    """What is in the directory."""
    return {each.name for each in data.iterdir()}


async def refused(data: Path, *words: str) -> None:
    """It does not start, says this in one line, and leaves the directory as it is."""
    before = names(data)
    outcome = await run(script("gateway"), "serve", "--data-dir", str(data), *ANYWHERE)
    [line] = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert outcome.code != 0
    assert [word for word in words if word not in line] == [], line
    assert names(data) == before


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702, 0o1777])
async def test_a_data_directory_writable_by_others_is_refused(tmp_path: Path, mode: int) -> None:
    """They could put another registry into place."""
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(mode)
    await refused(data, f"chmod go-rwx {data}", f"{mode:04o}")


@AS_ROOT
async def test_a_data_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    """Its owner could do the same, whatever its mode."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    os.chown(data, NOBODY, NOBODY)
    await refused(data, str(NOBODY), "chown -R 0")


async def test_a_data_directory_readable_by_others_gives_a_warning(tmp_path: Path) -> None:
    """It starts, since each file has its own mode, and warns."""
    gateway = GatewayProcess(tmp_path, keep_ports=False)
    gateway.data.mkdir()
    gateway.data.chmod(0o755)
    async with started(gateway):
        [warning] = gateway.logged("data_directory.open_to_others")
        assert f"chmod go-rwx {gateway.data}" in warning["message"]


@pytest.mark.parametrize("mode", [0o666, 0o620])
async def test_a_settings_file_writable_by_others_is_refused(tmp_path: Path, mode: int) -> None:
    """A file that was found by default is not trusted then; one that is named with --config is the caller's choice."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    file = data / "gateway.toml"
    file.write_text("refusals_kept = 7\n")
    file.chmod(mode)
    await refused(data, f"{file}: may be written by other users", f"chmod go-w {file}")
    named = await run(script("gateway"), "config", "--config", str(file), "--json")
    assert (named.code, '"refusals_kept"' in named.out) == (0, True)


@AS_ROOT
async def test_a_settings_file_of_another_user_is_refused(tmp_path: Path) -> None:
    """The same for their owner; commands do not believe them either."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    file = data / "gateway.toml"
    file.write_text("refusals_kept = 7\n")
    os.chown(file, NOBODY, NOBODY)
    await refused(data, f"{file}: belongs to the user with the number {NOBODY}", "--config")
    outcome = await run(script("gateway"), "config", "--data-dir", str(data))
    assert (outcome.code != 0, str(NOBODY) in outcome.err) == (True, True)


@pytest.mark.parametrize("name", [".gateway.url.new", "gateway.url", ".doctor.json.new", "doctor.json"])
async def test_a_symbolic_link_instead_of_a_file_is_replaced(tmp_path: Path, name: str) -> None:
    """It is taken away, and what it leads to stays as it was."""
    victim = tmp_path / "victim"
    victim.write_text("precious\n")
    gateway = GatewayProcess(tmp_path, keep_ports=False)
    gateway.data.mkdir(mode=0o700)
    (gateway.data / name).symlink_to(victim)
    async with started(gateway):
        assert victim.read_text() == "precious\n"
        found = (gateway.data / name.removesuffix(".new").removeprefix(".")).lstat()
        assert stat.S_ISREG(found.st_mode)
        assert stat.S_IMODE(found.st_mode) == (0o644 if "gateway.url" in name else 0o600)
