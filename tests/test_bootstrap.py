"""One gateway a data directory, and what it is called from its first start on."""

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.bootstrap import first_start
from gateway.errors import AlreadyRunningError, StoreError
from gateway.settings.loading import Settings
from gateway.store import View, key_sql, open_database, signing_key_sql
from gateway.store.sqlite import lock
from gateway.store.sqlite.lock import LOCK_NAME, OPENING_NAME, exclusive
from tests.support.wait import eventually

HOLDER = """
import sys, pathlib
from gateway.store.sqlite.lock import exclusive
with exclusive(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""

OLD = """import fcntl
descriptor = open(pathlib.Path(sys.argv[1]) / "gateway.lock", "w+")
fcntl.flock(descriptor, fcntl.LOCK_EX)
if descriptor.write("4711\\n") and not descriptor.flush():"""


def holder(data_dir: Path) -> subprocess.Popen[bytes]:
    """Another process that holds the data directory."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(data_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout
    assert process.stdout.readline() == b"held\n"
    return process


def test_a_second_gateway_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    """The message names the process and both ways out; the first is not disturbed."""
    with holder(tmp_path) as other:
        with pytest.raises(AlreadyRunningError) as refused, exclusive(tmp_path):
            pass
        assert f"process {other.pid}" in refused.value.message
        assert str(tmp_path) in refused.value.message
        assert "--data-dir" in refused.value.message
        assert other.poll() is None
        other.communicate()


@pytest.mark.parametrize("removed", [(LOCK_NAME,), (LOCK_NAME, OPENING_NAME)])
def test_a_lock_file_that_was_removed_lets_no_second_gateway_in(removed: tuple[str, ...], tmp_path: Path) -> None:
    """The lock is on the directory: a file in it can be removed by hand. The message still names the process."""
    with holder(tmp_path) as other:
        for name in removed:
            (tmp_path / name).unlink(missing_ok=True)
        second = subprocess.run(
            [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        assert b"held" not in second.stdout
        with pytest.raises(AlreadyRunningError, match=f"process {other.pid}"), exclusive(tmp_path):
            pass
        assert lock.holder(tmp_path) == other.pid
        other.communicate()
    assert lock.holder(tmp_path) is None


def test_a_gateway_of_an_earlier_version_is_detected(tmp_path: Path) -> None:
    """It holds the file alone."""
    script = HOLDER.replace(
        "from gateway.store.sqlite.lock import exclusive\nwith exclusive(pathlib.Path(sys.argv[1])):", OLD
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(AlreadyRunningError, match="process 4711"), exclusive(tmp_path):
            pass
        assert lock.holder(tmp_path) == 4711
        other.communicate()


async def test_the_opened_registry_is_the_file_of_that_name(tmp_path: Path) -> None:
    """A file that was removed during the wait for its lock locks no process out: the wait begins again."""
    path = tmp_path / OPENING_NAME
    inodes: list[int] = []

    def wait_and_look() -> None:
        with lock.alone(tmp_path):
            inodes.append(path.stat().st_ino)

    with path.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        before = os.fstat(held.fileno()).st_ino
        waiting = asyncio.create_task(asyncio.to_thread(wait_and_look))
        await eventually(lambda: _opened(path) == 2, "the other has opened the file, too")
        path.unlink()
        fcntl.flock(held, fcntl.LOCK_UN)
        await waiting
        assert inodes != [before]


def _opened(path: Path) -> int:
    """How many descriptors of this process are of that file."""
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found += descriptor.readlink() == path
    return found


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_gateway_holds_no_lock(end: signal.Signals, tmp_path: Path) -> None:
    """However it ended, the next one starts, and says its own name."""
    with holder(tmp_path) as other:
        os.kill(other.pid, end)
        other.wait()
    with exclusive(tmp_path):
        assert int((tmp_path / "gateway.lock").read_text()) == os.getpid()


def test_a_released_lock_is_free(tmp_path: Path) -> None:
    """Also within one process, and also after an error inside."""
    with pytest.raises(KeyError), exclusive(tmp_path):
        raise KeyError
    with exclusive(tmp_path):
        pass


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    """Otherwise the owner of the directory could have root write into any file."""
    other = tmp_path / "other"
    other.write_text("precious")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / LOCK_NAME).symlink_to(other)
    with pytest.raises(StoreError, match="cannot be used"), exclusive(tmp_path / "data"):
        pass
    assert other.read_text() == "precious"


def test_an_uncreatable_data_directory_is_an_error(tmp_path: Path) -> None:
    """The message says what to do."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="name another one with --data-dir"), exclusive(tmp_path / "file" / "data"):
        pass


def test_ids_are_kept_over_restarts(tmp_path: Path) -> None:
    """The gateway's id, its first project and its signing key are made once."""
    settings = Settings(data_dir=tmp_path)
    gateway_id, project_id = first_start(settings)
    assert gateway_id.startswith("gw_")
    assert project_id.startswith("proj_")
    kid = signing_keys(tmp_path)
    assert len(kid) == 1
    for _ in range(2):
        assert first_start(settings) == (gateway_id, project_id)
        assert signing_keys(tmp_path) == kid


def test_a_configured_id_is_used_and_stored(tmp_path: Path) -> None:
    """Set once, it stays when the setting is gone; set to a new value, it changes, and the project stays."""
    _, project_id = first_start(Settings(data_dir=tmp_path, gateway_id="ward_3"))
    assert first_start(Settings(data_dir=tmp_path)) == ("ward_3", project_id)
    assert first_start(Settings(data_dir=tmp_path, gateway_id="ward_4")) == ("ward_4", project_id)


def signing_keys(data_dir: Path) -> list[str]:
    """Ids of the signing keys; there is one project beside them."""
    connection = open_database(data_dir)
    try:
        view = View(connection)
        assert [row.name for row in key_sql.projects(view)] == ["default"]
        return signing_key_sql.signing_key_ids(view)
    finally:
        connection.close()
