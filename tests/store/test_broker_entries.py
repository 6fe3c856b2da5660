"""What opens a broker: good entries and sessions of devices, and which devices ever had a token, a page at a time."""

from functools import partial
from pathlib import Path

from gateway.domain import devices
from gateway.models.devices import RegisterDevice
from gateway.store import broker_entry_sql, broker_session_sql, token_sql
from tests.support.registry import ACTOR, Registry, registry

LAST = "the last"


async def token_of(fleet: Registry, device_pk: int) -> int:
    """The row of its newest good token."""
    return (await fleet.store.read(lambda view: token_sql.live(view, device_pk)))[0].id


async def test_good_entries_are_those_of_all_good_tokens(tmp_path: Path) -> None:
    """Two after a refresh, until the new token is used; none of a device that is unbound, or served elsewhere."""
    async with registry(tmp_path) as fleet:
        one, refreshed, unbound = [await fleet.bound(f"SN-{number}") for number in range(3)]
        token = await token_of(fleet, refreshed.pk)
        await fleet.store.write(lambda tx: devices.refresh(tx, fleet.project_id, refreshed.id, token))
        await fleet.unbind(unbound)
        names = [one.id, refreshed.id, unbound.id, "dev_UNKNOWN"]
        good = await fleet.store.read(partial(broker_entry_sql.good, broker=1, device_ids=names))
        assert {name: len(entries) for name, entries in good.items()} == dict(zip(names, (1, 2, 0, 0), strict=True))


async def test_devices_that_ever_had_a_token_are_read_in_pages(tmp_path: Path) -> None:
    """Unbound and deleted ones too; one that was never bound has had none. A page may be empty."""
    async with registry(tmp_path) as fleet:
        for number in range(3):
            asked = RegisterDevice(serial_number=f"never bound {number}")
            await fleet.store.write(lambda tx, asked=asked: devices.register(tx, fleet.project_id, asked, ACTOR))  # type: ignore[misc]
        bound = [await fleet.bound(f"SN-{number}") for number in range(4)]
        await fleet.unbind(bound[0])
        await fleet.store.write(lambda tx: devices.delete(tx, fleet.project_id, bound[1].id, ACTOR))
        every = [row["id"] for row in await fleet.store.read(lambda view: view.all("SELECT id FROM devices"))]
        ids, had = sorted(every), {device.id for device in bound}
        pages, after = list[list[str]](), ""
        while after != LAST:
            page = await fleet.store.read(partial(broker_entry_sql.ever_bound, after=after, limit=3))
            pages.append(page.ids)
            after = page.last or LAST
        assert pages == [[each for each in ids[first : first + 3] if each in had] for first in (0, 3, 6)]


async def test_good_sessions_are_those_of_good_tokens_here(tmp_path: Path) -> None:
    """Not of a revoked token, at another broker, of an unknown session, nor of a device that was not asked for."""
    async with registry(tmp_path) as fleet:
        good, revoked, unknown, other = [await fleet.bound(f"SN-{number}") for number in range(4)]
        tokens = {device.id: await token_of(fleet, device.pk) for device in (good, revoked, other)}
        for name, token in tokens.items():
            await fleet.store.write(lambda tx, name=name, token=token: broker_session_sql.note(tx, name, name, token))  # type: ignore[misc]
        await fleet.unbind(revoked)
        names = [good.id, revoked.id, unknown.id, "dev_UNKNOWN"]
        asked = partial(broker_session_sql.good_sessions, device_ids=names)
        assert await fleet.store.read(partial(asked, broker=1)) == {good.id: tokens[good.id]}
        assert await fleet.store.read(partial(asked, broker=2)) == {}
