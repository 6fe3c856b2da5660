"""A registry file that is damaged, closed to the user or on a full disk: a line with the remedy, and no traceback."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gateway.cli import main
from gateway.store import DATABASE_NAME
from tests.cli.support import Cli
from tests.e2e.program import clean_environment, run, script
from tests.support.registry_commands import READS
from tests.support.small_disk import full, may_mount, small_disk

pytestmark = pytest.mark.sqlite
"""Faults of SQLite's file; tests/store/test_postgres_rights.py has those of a server."""

WRITES = ["accounts create integrator_x", "keys create --name y", "projects create other", "registry recount"]
SERVE = "serve --http 127.0.0.1:0 --mqtt 127.0.0.1:0"
_ANY = "-dac_override,-dac_read_search"
_AS_ANY_USER = () if os.geteuid() else ("setpriv", f"--bounding-set={_ANY}", f"--inh-caps={_ANY}")
"""Takes from root the right to open what its owner may not open."""


@pytest.mark.damages_registry
@pytest.mark.parametrize("words", [*READS, *WRITES, SERVE])
def test_a_damaged_table_is_reported(cli: Cli, words: str) -> None:
    """The file opens: the pages of its tables are overwritten, but for those of the schema."""
    _overwrite_tables(cli.data_dir / DATABASE_NAME)
    said = cli(*words.split(), code=1)
    assert "The file is damaged: stop the gateway" in _the_error(said.err)


@pytest.mark.damages_registry
def test_completion_says_nothing_of_it(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would stand in the line that is being typed."""
    _overwrite_tables(cli.data_dir / DATABASE_NAME)
    words = ("gateway", "devices", "show", "--data-dir", str(cli.data_dir), "")
    monkeypatch.setenv("_GATEWAY_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", " ".join(words))
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    with pytest.raises(SystemExit) as ended:
        main([])
    said = capsys.readouterr()
    assert (ended.value.code, said.out.strip(), said.err) == (0, "", "")


@pytest.mark.damages_registry
def test_a_file_that_was_cut_off_is_reported(cli: Cli) -> None:
    """It does not open. Another remedy, such as more room, would not help."""
    file = cli.data_dir / DATABASE_NAME
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size // 2)
    error = _the_error(cli("keys", "list", code=1).err)
    assert (str(file) in error, "The file is damaged: stop the gateway" in error) == (True, True), error


@pytest.mark.skipif(not may_mount(), reason="mounting a small file system takes root")
@pytest.mark.parametrize("words", [*WRITES, SERVE, "migrate-schema", "restore {backup} --yes"])
def test_a_full_disk_is_reported(cli: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str) -> None:
    """Each says that there is no room; afterwards the registry is whole."""
    backup = tmp_path / "backup.db"
    cli("backup", str(backup))
    with small_disk(tmp_path / "disk", kib=8_192) as disk:
        shutil.copytree(cli.data_dir, disk / "data")
        on_disk = Cli(disk / "data", capsys)
        with full(disk):
            error = _the_error(on_disk(*words.format(backup=backup).split(), code=1).err)
        room = "The disk is full: free some space where the data directory is (setting 'data_dir')" in error
        assert room or f"{on_disk.data_dir} cannot be used (No space left on device)" in error, error
        assert "same request" not in error
        on_disk("keys", "create", "--name", "y")


@pytest.mark.parametrize(
    ("modes", "words", "remedy"),
    [
        ({DATABASE_NAME: 0o000}, "keys list", "Check free space and permissions of the data directory"),
        ({DATABASE_NAME: 0o400}, "keys create --name y", "or the registry in it is read only: make both writable"),
        ({"registry.lock": 0o000}, "keys list", "Check free space and permissions of the data directory"),
        ({DATABASE_NAME: 0o400, ".": 0o500}, "keys create --name y", "read only: make both writable"),
        ({"gateway.lock": 0o000}, SERVE, "Make it writable for this user"),
    ],
)
async def test_a_file_that_the_user_may_not_use_is_reported(
    cli: Cli, modes: dict[str, int], words: str, remedy: str
) -> None:
    """As when root has made it, or it was copied from another machine."""
    for name, mode in modes.items():
        (cli.data_dir / name).touch()
        (cli.data_dir / name).chmod(mode)
    where = ("--data-dir", str(cli.data_dir))
    said = await run(*_AS_ANY_USER, script("gateway"), *words.split(), *where, environment=clean_environment())
    for name in modes:
        (cli.data_dir / name).chmod(0o700)
    assert said.code == 1, said
    assert remedy in _the_error(said.err)
    assert "setting 'data_dir'" in said.err or str(cli.data_dir) in said.err


def _the_error(err: str) -> str:
    assert "Traceback" not in err
    (line,) = [each for each in err.splitlines() if each.startswith("error: ")]
    return line


def _overwrite_tables(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection:
        rows = connection.execute("SELECT tbl_name, rootpage FROM sqlite_schema WHERE rootpage > 0").fetchall()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with file.open("r+b") as opened:
        for table, page in rows:
            if "migrations" not in table:
                opened.seek((page - 1) * size)
                opened.write(b"\xff" * size)
