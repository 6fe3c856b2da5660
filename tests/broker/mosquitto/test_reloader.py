"""The reloader: a user without any right over Mosquitto has it read its password file, and can do nothing else."""

import codecs
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from gateway.broker.mosquitto import reloader
from gateway.broker.mosquitto.password_file import BrokerSignalError, PasswordFile, password_entry
from tests.support.mosquitto import Mosquitto
from tests.support.wire import NOT_AUTHORISED

GATEWAY, STRANGER = 65_534, 65_533
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become other users")


@pytest.fixture
def place() -> Iterator[Path]:
    """Where the socket is: a directory that every user may enter; those of pytest are closed."""
    with TemporaryDirectory(prefix="reload-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory) / "reload"


@contextmanager
def reloading(place: Path, pid_file: Path) -> Iterator[None]:
    """A reloader for the user ``GATEWAY``."""
    with reloader.listening(place) as bound:

        def work() -> None:
            with suppress(OSError):  # the end of the block
                reloader.serve(bound, pid_file, GATEWAY)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            bound.shutdown(socket.SHUT_RDWR)
            thread.join()


def by(uid: int, work: Callable[[], None]) -> str:
    """What a process of this user, without any capability, is told; nothing when all went well."""
    codecs.lookup("ascii")  # the child may not read Python's own files
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresuid(uid, uid, uid)
            work()
        except BrokerSignalError as error:
            os.write(writing, error.message.encode())
        except BaseException as error:  # noqa: BLE001 - the parent tells it
            os.write(writing, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        said = told.read().decode()
    os.waitpid(child, 0)
    return said


@AS_ROOT
async def test_an_unprivileged_gateway_gets_a_revoked_device_cut(tmp_path: Path, place: Path) -> None:
    """By asking; by itself it may not signal Mosquitto, and a third user is answered nothing but no."""
    async with Mosquitto(tmp_path, users={"dev_A": "token"}) as broker, broker.client("dev_A") as device:
        entry = password_entry("x")
        kept = PasswordFile(broker.password_file, pid_file=None, fixed={"other": entry})
        kept.write([])
        pid = broker.pid_file.read_text()
        copy = place.parent / "pid"
        copy.write_text(pid)
        own = PasswordFile(broker.password_file, pid_file=copy, fixed={})
        assert "may not be signalled by this user" in by(GATEWAY, own.reload)
        with reloading(place, broker.pid_file):
            assert "does nothing for the user with the number 65533" in by(STRANGER, lambda: reloader.ask(place))
            serve_auth_endpoint = PasswordFile(
                broker.password_file, pid_file=None, fixed={}, ask_for_reload=lambda: reloader.ask(place)
            )
            assert by(GATEWAY, serve_auth_endpoint.reload) == ""
            assert await device.closed() == []
            assert await broker.connect_answer("dev_A", "dev_A", "token") == NOT_AUTHORISED


async def test_a_failure_of_the_reloader_is_reported_to_the_gateway(tmp_path: Path, place: Path) -> None:
    """No reloader, and a pid file that names no process: each with its remedy."""
    with pytest.raises(BrokerSignalError, match=r"nobody answers at .*device-gateway-reload"):
        reloader.ask(place)
    with reloading(place, tmp_path / "missing"), pytest.raises(BrokerSignalError, match="cannot be read"):
        reloader.ask(place)
    with pytest.raises(BrokerSignalError, match="nobody answers"):
        reloader.ask(place)  # its socket is left, and nobody listens


def test_a_fake_reloader_cannot_block_the_gateway(place: Path) -> None:
    """An answer without end is read to its bound, and written out so that it steers no terminal."""
    with reloader.listening(place) as bound:

        def work() -> None:
            connection, _ = bound.accept()
            with connection, suppress(OSError):
                while True:
                    connection.sendall(b"\x1b[2J" * 1_000)

        thread = threading.Thread(target=work)
        thread.start()
        with pytest.raises(BrokerSignalError, match=r"^\\x1b") as refused:
            reloader.ask(place)
        thread.join()
    assert len(refused.value.message) < 5_000
    assert "\x1b" not in refused.value.message
