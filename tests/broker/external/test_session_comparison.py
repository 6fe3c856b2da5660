"""Comparison of a broker's sessions with the registry: a page at a time, in bounded memory."""

from collections.abc import AsyncIterator, Collection, Sequence
from pathlib import Path

import pytest

from gateway.broker.clients import BrokerClient
from gateway.broker.external import session_sync
from gateway.broker.external.admissions import SETTLE_SECONDS, Admissions
from gateway.broker.external.session_sync import SessionSync
from gateway.errors import UnavailableError
from gateway.store import View, broker_session_sql
from tests.broker.external.support import RecordedDisconnector, due, let_in_before, token_id
from tests.support.clock import ManualTimer
from tests.support.registry import Registry, registry
from tests.support.wait import eventually


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Registry]:
    """A registry."""
    async with registry(tmp_path) as opened:
        yield opened


async def test_a_comparison_reads_a_page_at_a_time(fleet: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call reads one page here, so rows of the outbox come between. All strays are cut, though pages move up.

    The registry is asked for the devices of a page.
    """
    monkeypatch.setattr(session_sync, "SLICE_SECONDS", 0.0)
    monkeypatch.setattr(session_sync, "LISTED_EVERY_SECONDS", 0.0)
    asked, good_sessions = list[int](), broker_session_sql.good_sessions

    def counted(view: View, broker: int, device_ids: Collection[str]) -> dict[str, int]:
        asked.append(len(device_ids))
        return good_sessions(view, broker, device_ids)

    monkeypatch.setattr(broker_session_sql, "good_sessions", counted)
    good, strays = [await fleet.bound(f"SN-{number}") for number in range(10)], [f"dev_STRAY{n}" for n in range(90)]
    for device in good:
        await let_in_before(fleet, device)
    there = {BrokerClient.of_device(each) for each in (*strays, *(device.id for device in good))}
    scissors = RecordedDisconnector(there=there, page=20)
    access, late = SessionSync(fleet.store, Admissions(), scissors), await fleet.bound("SN-late")
    assert not await access.compare()
    assert len(scissors.cuts) <= 20
    await fleet.unbind(late)
    assert not [row for row in await access.sync(await due(fleet)) if row.device_id == late.id]
    await eventually(access.compare, "all are compared")
    assert set(scissors.cuts) >= {*strays, late.id}
    assert {client.client_id for client in scissors.there} == {device.id for device in good}
    assert scissors.listed > 1
    assert max(asked) <= 20


async def test_strays_that_cannot_be_cut_are_bounded(fleet: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more are listed while so many wait."""
    monkeypatch.setattr(session_sync, "MOST_STRAYS", 30)

    class Stuck(RecordedDisconnector):
        async def cut(self, client: BrokerClient) -> None:
            raise UnavailableError(f"{client.client_id} does not close")

    stuck = Stuck(there={BrokerClient.of_device(f"dev_STRAY{number}") for number in range(200)}, page=20)
    access = SessionSync(fleet.store, Admissions(), stuck)
    for _ in range(3):
        assert not await access.compare()
    assert len(access._strays) == 40  # noqa: SLF001 - what is held
    access.stop()


async def test_an_api_that_fails_in_the_middle_is_listed_again(fleet: Registry) -> None:
    """A listing that has ended early counts for nothing."""

    class Failing(RecordedDisconnector):
        async def connected(self) -> AsyncIterator[Sequence[BrokerClient]]:
            async for page in super().connected():
                yield page
                if self.listed == 1:
                    raise UnavailableError("it went away")

    there = {BrokerClient.of_device(f"dev_STRAY{number}") for number in range(30)}
    failing = Failing(there=there, page=20)
    access = SessionSync(fleet.store, Admissions(), failing)
    with pytest.raises(UnavailableError, match="went away"):
        await access.compare()
    await eventually(access.compare, "all are compared")
    assert failing.there == set()


async def test_admitted_devices_are_forgotten_when_they_have_settled(fleet: Registry) -> None:
    """Those of the last seconds are kept. The registry knows the others."""
    clock = ManualTimer()
    admissions = Admissions(clock)
    for number in range(10_000):
        clock.now += SETTLE_SECONDS / 100
        admissions.let_in(BrokerClient.of_device(f"dev_{number}"), number)
    assert admissions.devices == 100
    assert admissions.token_of("dev_9999") == 9_999
    assert admissions.token_of("dev_0") is None
    assert not admissions.is_settled("dev_9999")
    assert admissions.is_settled("dev_0")
    device = await fleet.bound("SN-1")
    await let_in_before(fleet, device)
    assert await fleet.store.read(lambda view: broker_session_sql.good_sessions(view, 1, [device.id])) == {
        device.id: await token_id(fleet, device)
    }
