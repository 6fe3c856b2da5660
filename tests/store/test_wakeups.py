"""Who is woken by a commit: those who bring the broker in step, and those who follow events."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.domain import devices, webhooks
from gateway.errors import StoreError
from gateway.models.devices import RegisterDevice
from gateway.models.webhooks import CreateWebhook, UpdateWebhook
from gateway.store import Context, Store, StoreListener, Tx, key_sql, webhook_sql
from gateway.store.wakeups import Wakeups


class RecordingListener(StoreListener):
    """Writes down the calls of the store."""

    def __init__(self, rung: list[str], *, kinds: bool = False) -> None:
        self._rung = rung
        self._kinds = kinds

    def notify_outbox(self, kinds: frozenset[str]) -> None:
        """Write the kinds down, if asked to."""
        self._rung += kinds if self._kinds else ()

    def notify_events(self) -> None:
        """Write down that there are events."""
        self._rung.append("news")


def _register(tx: Tx, project_id: str, serial: str) -> str:
    device, _ = devices.register(tx, project_id, RegisterDevice(serial_number=serial), "key_1")
    return str(device.id)


async def test_each_commit_notifies_of_its_changes(tmp_path: Path) -> None:
    """Events wake their followers, a row in the outbox wakes the worker of its kind; no other task is woken."""
    rung: list[str] = []
    async with Store(tmp_path, Context(), RecordingListener(rung, kinds=True)) as store:
        project_id = await store.write(lambda tx: key_sql.create_project(tx, "one"))
        assert rung == []
        device_id = await store.write(lambda tx: _register(tx, project_id, "SN-1"))
        assert rung == ["news"]
        await store.write(lambda tx: devices.bind(tx, project_id, device_id, "eu_1", "key_1"))
        assert (rung[0], sorted(rung[1:3]), rung[3]) == ("news", ["credential", "topic"], "news")
        await store.write(lambda tx: devices.reset(tx, project_id, device_id, "key_1"))
        assert rung[4:] == ["command", "news"]


@pytest.mark.sqlite  # its disk is made full by a limit of SQLite
async def test_a_rollback_notifies_nothing(tmp_path: Path) -> None:
    """No commit, no bell."""
    rung: list[str] = []
    async with Store(tmp_path, Context(), RecordingListener(rung)) as store:
        project_id = await store.write(lambda tx: key_sql.create_project(tx, "one"))

        def full_disk(tx: Tx) -> None:
            _register(tx, project_id, "SN-1")
            tx.run("PRAGMA max_page_count = 1")  # SQLite makes it the present size: no more room
            tx.run("INSERT INTO meta (key, value) VALUES ('large', ?)", "x" * 1_000_000)

        with pytest.raises(StoreError, match="full"):
            await store.write(full_disk)
        assert rung == []


async def test_changes_of_subscribers_notify(tmp_path: Path) -> None:
    """A webhook that is switched on, and a delivery that is replayed, are not left to wait for the next event."""
    rung: list[str] = []
    async with Store(tmp_path, Context(), RecordingListener(rung)) as store:
        project_id = await store.write(lambda tx: key_sql.create_project(tx, "one"))

        async def rings(write: Callable[[Tx], object]) -> bool:
            rung.clear()
            await store.write(write)
            return rung == ["news"]

        body = CreateWebhook(url="https://example.com/")
        webhook, _ = await store.write(lambda tx: webhooks.create(tx, project_id, body, "gateway"))
        await store.write(lambda tx: _register(tx, project_id, "SN-1"))
        await store.write(lambda tx: webhooks.pick_up(tx, webhook.id))
        delivery_id = await store.read(lambda view: str(view.value("SELECT id FROM deliveries")))
        change = UpdateWebhook.model_validate({"enabled": True})
        assert await rings(lambda tx: webhooks.update(tx, project_id, webhook.id, change, "gateway"))
        assert await rings(lambda tx: webhooks.replay(tx, project_id, webhook.id, delivery_id))
        assert not await rings(lambda tx: webhook_sql.end_gap(tx, webhook.id))


async def test_a_wakeup_cleared_before_the_read_misses_nothing() -> None:
    """Every waiter is woken, and a waiter that takes the event afterwards waits for the next."""
    wakeups = Wakeups()
    first = wakeups.news
    waiters = [asyncio.create_task(first.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    wakeups.notify_events()
    assert await asyncio.gather(*waiters) == [True] * 3
    assert wakeups.news is not first
    assert not wakeups.news.is_set()
