"""``gateway backup`` and ``restore``: a copy of one instant, checked, and nothing lost on the way back."""

import os
import shutil
import sqlite3
import stat
import threading
from contextlib import closing
from pathlib import Path

import pytest

from gateway.store import DATABASE_NAME, open_database
from gateway.store.sqlite.lock import LOCK_NAME, exclusive
from tests.cli.support import Cli


@pytest.fixture
def copy(cli: Cli, tmp_path: Path) -> Path:
    """A backup of a registry with one device, BP-1; after it BP-2 was registered."""
    cli("devices", "register", "BP-1")
    file = tmp_path / "copy.db"
    cli("backup", str(file))
    cli("devices", "register", "BP-2")
    return file


def serials(cli: Cli) -> list[str]:
    """Serial numbers of the devices, the oldest first."""
    return [each["serial_number"] for each in cli.json("devices", "list")][::-1]


def test_a_backup_is_one_private_file(cli: Cli, copy: Path) -> None:
    """Readable by its owner alone, without a log beside it, and nothing of a draft is left."""
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert sorted(each.name for each in copy.parent.iterdir()) == ["copy.db", "data"]
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "delete"
    assert cli.json("backup", str(copy), "--force")["devices"] == 2


def test_a_backup_replaces_nothing(cli: Cli, copy: Path) -> None:
    """Without --force; also not the registry itself, nor a directory."""
    before = copy.read_bytes()
    assert "--force" in cli("backup", str(copy), code=5).err
    assert copy.read_bytes() == before
    cli("backup", str(copy.parent), "--force", code=5)
    cli("backup", str(cli.data_dir / DATABASE_NAME), "--force", code=5)
    assert "cannot be written" in cli("backup", str(copy.parent / "no" / "such" / "file"), code=1).err


def test_a_backup_while_others_write(cli: Cli, tmp_path: Path) -> None:
    """Each copy is whole: of what is written in one transaction it has all or nothing, and both are there."""
    done = threading.Event()

    def write() -> None:
        with closing(open_database(cli.data_dir)) as connection:
            number = 0
            while not done.is_set():
                number += 1
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("INSERT OR REPLACE INTO meta VALUES ('one', ?)", (str(number),))
                connection.execute("INSERT OR REPLACE INTO meta VALUES ('two', ?)", (str(number),))
                connection.execute("COMMIT")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            cli("backup", str(tmp_path / f"{number}.db"))
    finally:
        done.set()
        writer.join()
    for number in range(5):
        with closing(sqlite3.connect(tmp_path / f"{number}.db")) as connection:
            facts = dict(connection.execute("SELECT key, value FROM meta").fetchall())
            assert facts.get("one") == facts.get("two")


def test_a_restore_brings_the_copy_back(cli: Cli, copy: Path) -> None:
    """What came after it is gone from the registry, and kept beside it."""
    restored = cli.json("restore", str(copy), "--yes")
    assert serials(cli) == ["BP-1"]
    old = Path(restored["old_registry"])
    assert old.parent == cli.data_dir
    cli("restore", str(old), "--yes")
    assert serials(cli) == ["BP-1", "BP-2"]


def test_a_restore_asks_for_confirmation(cli: Cli, copy: Path) -> None:
    """It says what is in the copy, and does nothing without a yes."""
    said = cli("restore", str(copy), code=2)
    assert "(1 device," in said.err
    assert "--yes" in said.err
    assert serials(cli) == ["BP-1", "BP-2"]


def test_a_restore_into_an_empty_directory(cli: Cli, copy: Path) -> None:
    """A new machine: there is no old registry to keep."""
    shutil.rmtree(cli.data_dir)
    assert cli.json("restore", str(copy), "--yes")["old_registry"] is None
    assert serials(cli) == ["BP-1"]
    assert stat.S_IMODE((cli.data_dir / DATABASE_NAME).stat().st_mode) == 0o600


def test_a_restore_is_refused_while_the_registry_is_in_use(cli: Cli, copy: Path) -> None:
    """While a gateway runs, or another program has the registry open, nothing is changed."""
    with exclusive(cli.data_dir):
        said = cli("restore", str(copy), "--yes", code=3)
        assert "Stop it" in said.err
    with closing(open_database(cli.data_dir)) as connection:
        connection.execute("SELECT * FROM meta").fetchall()
        assert "has" in cli("restore", str(copy), "--yes", code=1).err
    assert serials(cli) == ["BP-1", "BP-2"]


def test_a_leftover_wal_is_neither_lost_nor_applied_to_the_copy(cli: Cli, copy: Path, tmp_path: Path) -> None:
    """After a kill the old registry's last commits lie in its log: they go with it, and never into the new one."""
    with closing(open_database(cli.data_dir)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("INSERT INTO meta VALUES ('late', 'word')")
        killed = tmp_path / "killed"
        shutil.copytree(cli.data_dir, killed)
    assert (killed / f"{DATABASE_NAME}-wal").stat().st_size > 0
    shutil.rmtree(cli.data_dir)
    killed.rename(cli.data_dir)
    old = cli.json("restore", str(copy), "--yes")["old_registry"]
    for file, late in ((cli.data_dir / DATABASE_NAME, None), (Path(old), ("word",))):
        with closing(sqlite3.connect(file)) as connection:
            assert connection.execute("SELECT value FROM meta WHERE key = 'late'").fetchone() == late


def test_a_damaged_registry_can_be_replaced(cli: Cli, copy: Path) -> None:
    """The damaged file is kept unchanged, for an operator who examines it."""
    database = cli.data_dir / DATABASE_NAME
    database.write_bytes(b"nothing of a database" * 1000)
    old = cli.json("restore", str(copy), "--yes")["old_registry"]
    assert Path(old).read_bytes().startswith(b"nothing of a database")
    assert serials(cli) == ["BP-1"]


def _damaged(copy: Path) -> None:
    content = bytearray(copy.read_bytes())
    content[8_192:65_536] = bytes(65_536 - 8_192)
    copy.write_bytes(content)


def _another_programs(copy: Path) -> None:
    copy.unlink()
    with closing(sqlite3.connect(copy)) as connection:
        connection.execute("CREATE TABLE notes (text)")


def _newer(copy: Path) -> None:
    with closing(sqlite3.connect(copy)) as connection, connection:
        connection.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('gateway', 'm999_moon', '')"
        )


def _nobodys(copy: Path) -> None:
    with closing(sqlite3.connect(copy)) as connection, connection:
        connection.execute("DELETE FROM meta")


@pytest.mark.parametrize(
    "spoil",
    [
        _damaged,
        _another_programs,
        _newer,
        _nobodys,
        lambda copy: copy.write_bytes(b"not a database at all"),
        lambda copy: copy.write_bytes(b""),
        Path.unlink,
    ],
)
def test_an_invalid_backup_is_not_restored(cli: Cli, copy: Path, spoil: object) -> None:
    """The file is named, and nothing is changed."""
    assert callable(spoil)
    spoil(copy)
    said = cli("restore", str(copy), "--yes", code=1 if copy.exists() else 4)
    assert str(copy) in said.err
    assert serials(cli) == ["BP-1", "BP-2"]
    assert not list(cli.data_dir.glob(f"{DATABASE_NAME}.*"))


@pytest.mark.damages_registry
def test_a_damaged_registry_is_not_backed_up(cli: Cli, tmp_path: Path) -> None:
    """Better to hear it now than when the backup is needed; the name stays free."""
    cli("devices", "register", "BP-1")
    _damaged(cli.data_dir / DATABASE_NAME)
    target = tmp_path / "copy.db"
    cli("backup", str(target), code=1)
    assert not target.exists()


def test_a_restore_by_root_keeps_the_gateways_owner(cli: Cli, copy: Path) -> None:
    """What a restore makes belongs to whom the data directory does: its gateway has to open it."""
    owner = 1 if os.geteuid() == 0 else os.geteuid()
    if os.geteuid() == 0:
        for each in (cli.data_dir, *cli.data_dir.iterdir()):
            os.chown(each, owner, owner)
    (cli.data_dir / LOCK_NAME).unlink(missing_ok=True)
    assert "chown" not in cli("restore", str(copy), "--yes").err
    assert {each.name: each.stat().st_uid for each in cli.data_dir.iterdir() if each.stat().st_uid != owner} == {}
    assert {DATABASE_NAME, LOCK_NAME} <= {each.name for each in cli.data_dir.iterdir()}


def test_root_gets_a_hint_about_the_owner_of_a_new_directory(cli: Cli, copy: Path) -> None:
    """On a new machine there is no owner to follow; who is not root has made it for itself."""
    shutil.rmtree(cli.data_dir)
    told = f"chown -R USER {cli.data_dir}" in cli("restore", str(copy), "--yes").err
    assert told == (os.geteuid() == 0)


def test_a_restore_starts_a_new_epoch(cli: Cli, copy: Path) -> None:
    """Every generation is raised, deleted devices' too, and bindings from then on have another signing key."""
    before = cli.json("signing-keys", "list")[0]["kid"]
    restored = cli.json("restore", str(copy), "--yes")
    bound = cli.bound("BP-1")
    assert bound["binding_generation"] == restored["generation"] + 1 > 1 << 20
    assert {each["kid"]: each["state"] for each in cli.json("signing-keys", "list")} == {
        restored["signing_key"]: "in use",
        before: "retired",
    }
    assert cli.bound("BP-3")["binding_generation"] == restored["generation"] + 1


def test_a_second_restore_of_the_same_backup_is_another_epoch(cli: Cli, copy: Path) -> None:
    """It knows of the first by the registry that it replaces, or by the file beside it when that is damaged."""
    first = cli.json("restore", str(copy), "--yes")
    cli.bound("BP-1")
    second = cli.json("restore", str(copy), "--yes")
    assert second["generation"] > first["generation"] + (1 << 20)
    (cli.data_dir / DATABASE_NAME).write_bytes(b"nothing of a database" * 1000)
    third = cli.json("restore", str(copy), "--yes")
    assert third["generation"] > second["generation"] + (1 << 20)
    assert len({each["signing_key"] for each in (first, second, third)}) == 3


def test_a_command_line_bind_on_a_copy_starts_a_new_epoch(cli: Cli, copy: Path) -> None:
    """No gateway has seen yet that the file was put back by hand; one that starts later begins no second epoch."""
    before = cli.bound("BP-1")
    for side in ("-wal", "-shm"):
        Path(f"{cli.data_dir / DATABASE_NAME}{side}").unlink(missing_ok=True)
    shutil.copyfile(copy, cli.data_dir / DATABASE_NAME)
    after = cli.bound("BP-1")
    assert after["binding_generation"] > before["binding_generation"] + (1 << 20)
    kid = cli.json("signing-keys", "list")[0]["kid"]
    cli("keys", "create", "--name", "another")
    assert cli.json("signing-keys", "list")[0]["kid"] == kid
