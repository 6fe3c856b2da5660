"""The fleet that outgrows the embedded broker: said in time, once a day, and not before."""

from pathlib import Path

from structlog.testing import capture_logs

from gateway.broker.capacity import EMBEDDED_BROKER, PASSWORD_FILE, SAID_EVERY, CapacityMonitor
from gateway.store import Context, Store, gauge_sql, home_sql
from gateway.store.broker_sql import FIRST
from tests.domain.brokers import with_homes
from tests.domain.support import World

FLEET = 3


async def test_capacity_warning_is_logged_once_a_day(tmp_path: Path) -> None:
    """With one bound device too many, at the first look and then a day later, with what to do."""
    with World(tmp_path) as world:
        for number in range(FLEET):
            world.bound(f"SN-{number}")
        world.register("SN-unbound")
    async with Store(tmp_path, Context()) as store:
        watch, content = (
            CapacityMonitor(store, "default", EMBEDDED_BROKER._replace(most=most)) for most in (FLEET - 1, FLEET)
        )
        with capture_logs() as logs:
            for _ in range(SAID_EVERY + 1):
                await watch.look()
            await content.look()
    assert [(each["event"], each["bound"]) for each in logs] == [("broker.capacity_exceeded", FLEET)] * 2
    assert "--broker mosquitto" in logs[0]["message"]


async def test_a_password_file_has_a_size_too(tmp_path: Path) -> None:
    """The same watch, with what Mosquitto is good for; the documentation names it."""
    with World(tmp_path) as world:
        world.bound()
    async with Store(tmp_path, Context()) as store:
        with capture_logs() as logs:
            for most in (0, 1):
                await CapacityMonitor(store, "default", PASSWORD_FILE._replace(most=most)).look()
    assert [each["bound"] for each in logs] == [1]
    assert "password file is good for 0" in logs[0]["message"]
    page = Path(__file__).parents[2] / "docs" / "scaling.md"
    assert f"more than {PASSWORD_FILE.most:,} bound devices" in page.read_text(encoding="utf-8")


async def test_devices_at_home_elsewhere_do_not_count(tmp_path: Path) -> None:
    """Each broker has two of four devices, and a fifth without a home is admitted by both."""
    with with_homes(tmp_path) as world:
        for number in range(4):
            world.bound(f"SN-{number}")
        assert [gauge_sql.bound_at(world.view, each) for each in ("default", "brk_b")] == [2, 2]
        world.run(home_sql.assign, [world.device(world.bound("SN-4")[0]).pk], FIRST, None)
        assert [gauge_sql.bound_at(world.view, each) for each in ("default", "brk_b")] == [3, 3]
    async with Store(tmp_path, Context()) as store:
        with capture_logs() as logs:
            await CapacityMonitor(store, "brk_b", PASSWORD_FILE._replace(most=2)).look()
    assert [each["bound"] for each in logs] == [3]


def test_documented_memory_size_holds() -> None:
    """500 bound devices are fine, one more is not; the documentation says the same."""
    assert EMBEDDED_BROKER.exceeded(EMBEDDED_BROKER.most) is None
    assert "501 devices are bound" in str(EMBEDDED_BROKER.exceeded(EMBEDDED_BROKER.most + 1))
    page = Path(__file__).parents[2] / "docs" / "embedded-broker.md"
    assert f"more than {EMBEDDED_BROKER.most} bound devices" in page.read_text(encoding="utf-8")
