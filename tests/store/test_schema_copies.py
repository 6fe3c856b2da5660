"""The copy of the registry that a migration makes first: whole, bounded in number, and needed."""

import os
import shutil
import stat
from contextlib import closing
from pathlib import Path

import pytest

from gateway.errors import StoreError
from gateway.store import DATABASE_NAME, open_database, open_to_serve
from gateway.store.backup import contents
from gateway.store.opening import COPIES_KEPT
from gateway.store.schema import newest_applied
from gateway.store.sqlite.connection import connect
from tests.store.older_registry import ROWS, STEPS, older, rows
from tests.support.small_disk import may_mount, small_disk

pytestmark = pytest.mark.sqlite
"""Copies of the file."""


def _copies(data_dir: Path) -> list[Path]:
    return sorted(data_dir.glob(f"{DATABASE_NAME}.m[0-9]*"), key=lambda file: file.stat().st_mtime_ns)


def test_the_copy_is_the_registry_as_it_was(tmp_path: Path) -> None:
    """Whole, of the earlier schema, readable by its owner alone, and good for a restore."""
    older(tmp_path)
    open_to_serve(tmp_path).close()
    (copy,) = _copies(tmp_path)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert copy.name.startswith(f"{DATABASE_NAME}.{STEPS[-2]}.")
    assert contents(copy).devices == 1
    with closing(connect(copy)) as connection:
        assert newest_applied(connection) == STEPS[-2]
        assert rows(connection, "commands") == [tuple(ROWS["commands"].values())]


def test_a_new_registry_is_not_copied(tmp_path: Path) -> None:
    """Neither one that is made, nor one that has this version's schema."""
    for _ in range(2):
        open_to_serve(tmp_path).close()
    assert _copies(tmp_path) == []


def test_a_bounded_number_of_copies_is_kept(tmp_path: Path) -> None:
    """The newest; a backup that an operator put there is left alone."""
    (tmp_path / f"{DATABASE_NAME}.mine").write_text("kept")
    seen: list[Path] = []
    for _ in range(COPIES_KEPT + 2):
        for side in ("", "-wal", "-shm"):
            (tmp_path / f"{DATABASE_NAME}{side}").unlink(missing_ok=True)
        older(tmp_path)
        open_to_serve(tmp_path).close()
        seen += [each for each in _copies(tmp_path) if each not in seen]
        os.utime(seen[-1], ns=(len(seen), len(seen)))
    assert len(seen) == COPIES_KEPT + 2
    assert _copies(tmp_path) == seen[-COPIES_KEPT:]
    assert (tmp_path / f"{DATABASE_NAME}.mine").read_text() == "kept"


def test_a_migration_that_fails_leaves_no_copies(tmp_path: Path) -> None:
    """A service that is started again and again would fill the disk; nothing has changed, so none is needed."""
    older(tmp_path, present=3)
    with closing(connect(tmp_path / DATABASE_NAME)) as connection:
        connection.execute("CREATE TABLE outbox_new (in_the_way)")
    for _ in range(2):
        with pytest.raises(StoreError, match="already exists"):
            open_to_serve(tmp_path)
        assert _copies(tmp_path) == []


@pytest.mark.skipif(not may_mount(), reason="needs root: it mounts a small file system")
def test_without_room_for_the_copy_nothing_is_migrated(tmp_path: Path) -> None:
    """The message says how much it takes and how to migrate without a copy."""
    with small_disk(tmp_path / "disk", 4_096) as disk:
        older(disk)
        filler = disk / "filler"
        filler.write_bytes(bytes(shutil.disk_usage(disk).free - (disk / DATABASE_NAME).stat().st_size))
        with pytest.raises(StoreError, match=r"free space.*Nothing was changed.*--no-copy"):
            open_to_serve(disk)
        assert _copies(disk) == []
        with closing(connect(disk / DATABASE_NAME, read_only=True)) as connection:
            assert newest_applied(connection) == STEPS[-2]
        filler.unlink()
        open_to_serve(disk).close()


def test_a_command_refuses_an_older_registry(tmp_path: Path) -> None:
    """It changes nothing, and says what does."""
    older(tmp_path)
    with pytest.raises(StoreError, match=rf"{STEPS[-2]}.*{STEPS[-1]}.*Nothing was changed.*Restart.*migrate-schema"):
        open_database(tmp_path)
    with closing(connect(tmp_path / DATABASE_NAME, read_only=True)) as connection:
        assert newest_applied(connection) == STEPS[-2]
