"""Two processes on one registry: the gateway notices what the command line has committed, and says where it is."""

import asyncio
from pathlib import Path

import pytest

from gateway.core.addresses import Address
from gateway.runtime.endpoint_file import FILE_NAME, Endpoints, published, read
from gateway.store import Context, Store, outbox_sql
from gateway.store.wakeups import Wakeups
from gateway.workers.change_poller import ChangePoller
from tests.domain.support import World


async def test_a_foreign_commit_notifies(tmp_path: Path) -> None:
    """What another connection marks in the outbox, and the events that it writes, wake those who wait for either."""
    with World(tmp_path) as other:
        wakeups = Wakeups()
        async with Store(tmp_path, Context()) as store:
            watcher = ChangePoller(store, wakeups)
            await watcher.look()
            news, work = wakeups.news, asyncio.create_task(wakeups.wait_for(outbox_sql.COMMAND))
            device_id = other.register()
            await watcher.look()
            assert news.is_set()
            other.bind(device_id)
            other.reset(device_id)
            await watcher.look()
            async with asyncio.timeout(60):
                await work


async def test_without_a_change_nothing_is_notified(tmp_path: Path) -> None:
    """Other commits, and what was worked off, ring nothing."""
    with World(tmp_path) as other:
        wakeups = Wakeups()
        async with Store(tmp_path, Context()) as store:
            watcher = ChangePoller(store, wakeups)
            other.bound()
            await watcher.look()
            news = wakeups.news
            other.settle()
            await watcher.look()
            assert not news.is_set()


@pytest.mark.parametrize("tls", [True, False])
@pytest.mark.parametrize("host", ["127.0.0.1", "mqtt.example.com", "::1"])
def test_the_endpoint_file_round_trips(tmp_path: Path, host: str, *, tls: bool) -> None:
    """While the gateway runs, and not after it."""
    told = Endpoints("http://127.0.0.1:8080", Address(host, 8883), tls)
    with published(tmp_path, told):
        assert read(tmp_path) == told
    assert read(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"one", b"http://x\nmqtt://nowhere\n", b"\xff\xff \xff", b"a b c"])
def test_an_invalid_endpoint_file_is_ignored(tmp_path: Path, content: bytes) -> None:
    """Half written, or of another program."""
    (tmp_path / FILE_NAME).write_bytes(content)
    assert read(tmp_path) is None
