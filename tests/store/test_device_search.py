"""The search of devices finds what its text stands in, whatever was written, with the index as without it."""

import asyncio
import random
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from gateway.domain import devices
from gateway.models.devices import ListDevices, RegisterDevice
from gateway.store import (
    Context,
    Store,
    Tx,
    device_candidates,
    device_list,
    device_search,
    device_sql,
    device_totals,
    key_sql,
)
from gateway.store.device_sql import DeviceRecord
from gateway.store.dialect import SQLITE
from gateway.store.writer import Writer
from tests.domain.support import World
from tests.store.support import queued

LETTERS = ["a", "A", "b", "ä", "Ä", "%", "_", "\\", '"', "'", "*", " ", "-", "ß", "漢", "🙂", "AND", "ward", "(", ":"]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A registry."""
    with World(tmp_path) as world:
        yield world


def found(world: World, **query: str) -> list[str]:
    """The ids of the devices on a page of this query, newest first."""
    rows = device_list.page(world.view, world.project_id, ListDevices.model_validate({**query, "limit": 1_000}))
    return [row.device.id for row in rows]


def expected(world: World, text: str) -> list[str]:
    """The ids of those with this text, large and small letters from a to z alike."""
    living = reversed(device_sql.living(world.view, 0, 10_000))
    if len(text) < 3:
        return [each.id for each in living if any(small(said).startswith(small(text)) for said in beginnings(each))]
    return [device.id for device in living if any(small(text) in small(said) for said in said_of(device))]


def beginnings(device: DeviceRecord) -> list[str]:
    """What of a device may begin with a short text."""
    return [device.serial_number, device.name or "", *device.tags.split(",")]


def said_of(device: DeviceRecord) -> list[str]:
    """What is searched of a device."""
    return [device.id, device.serial_number, device.name or "", device.end_user_id or "", device.tags]


def small(text: str) -> str:
    """The text with small letters from a to z."""
    return re.sub("[A-Z]", lambda letter: letter[0].lower(), text)


def check(tx: Tx) -> None:
    """Let FTS5 compare its index with the devices. The index of PostgreSQL follows each row by itself."""
    if tx.dialect is SQLITE:
        for table in ("device_search", "device_search_end_users"):
            tx.run(f"INSERT INTO {table} ({table}) VALUES ('integrity-check')")  # noqa: S608 - constants


def check_index(world: World) -> None:
    """The index says what is in the devices, as FTS5 itself checks it."""
    world.run(check)


@pytest.mark.parametrize("few", [0, 3, device_candidates.FEW])
def test_a_search_finds_the_same_as_a_full_scan(world: World, monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    """After registrations, bindings, new names and resets with any characters, for any part of any of it."""
    monkeypatch.setattr(device_candidates, "FEW", few)
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - pytest shows it on failure
    chance = random.Random(seed)  # noqa: S311 - a test wants to repeat it

    def text(most: int) -> str:
        return "x" + "".join(chance.choices(LETTERS, k=chance.randrange(most))) + "x"

    ids = [world.register(f"{number}{text(4)}", name=text(20)) for number in range(12)]
    for number in range(120):
        device_id = chance.choice(ids)
        row = world.device(device_id)
        match chance.randrange(6):
            case 0:
                world.update(device_id, name=chance.choice([None, text(20)]))
            case 1 if row.bound_at is None and not world.view.value("SELECT count(*) FROM commands"):
                world.bind(device_id, f"eu_{chance.randrange(10**6)}")
            case 2 if row.bound_at is not None:
                world.unbind(device_id)
            case 3:
                world.update(device_id, tags=chance.choices(["pilot", "Ward:3", "a.b-c", "x_y"], k=chance.randrange(3)))
            case _:
                said = chance.choice([each for each in said_of(row) if each])
                start = chance.randrange(len(said))
                wanted = said[start : start + chance.randrange(1, 40)]
                if wanted.strip():
                    assert found(world, search=wanted) == expected(world, wanted), (number, wanted)
    check_index(world)


def test_rolled_back_texts_are_not_found(tmp_path: Path) -> None:
    """In a group of writes one that raises leaves the index as it was, and the others' devices in it."""

    async def run() -> None:
        async with Store(tmp_path, Context()) as store:
            project_id = await store.write(lambda tx: key_sql.create_project(tx, "ward"))

            def register(tx: Tx, number: int) -> None:
                body = RegisterDevice(serial_number=f"SN-{number:04}", name=f"bed {number:04}")
                devices.register(tx, project_id, body, "key_1")
                if number % 3 == 0:
                    raise LookupError

            writes: list[Callable[[Tx], object]] = [partial(register, number=number) for number in range(100)]
            done = await asyncio.gather(*await queued(_writer(store), writes), return_exceptions=True)
            assert sum(isinstance(each, LookupError) for each in done) == 34
            await store.write(check)

            def search(text: str) -> int:
                query = ListDevices(search=text)
                return len(store.read_inline(lambda view: device_list.page(view, project_id, query)))

            assert [search(f"bed {number:04}") for number in range(100)] == [int(n % 3 != 0) for n in range(100)]

    asyncio.run(run())


def _writer(store: Store) -> Writer:
    return store._writer  # noqa: SLF001 - its queue


@pytest.mark.sqlite  # PostgreSQL's index needs no such step
def test_a_registry_without_the_index_is_indexed(world: World) -> None:
    """As a migration does it, and after rows were written by other means."""
    world.register("SN-1")
    world.connection.execute("UPDATE devices SET name = 'elsewhere'")
    world.run(device_search.rebuild)
    assert len(found(world, search="lsewher")) == 1
    check_index(world)


def test_pieces_are_from_anywhere_in_a_long_text() -> None:
    """Eight at most, the first and the last among them; a text of two characters has none."""
    assert device_search._pieces("ab") == []  # noqa: SLF001 - what the index is asked for
    assert device_search._pieces('a"b') == ['"a""b"']  # noqa: SLF001 - the same
    pieces = device_search._pieces("".join(map(chr, range(97, 123))))  # noqa: SLF001 - the same
    assert (len(pieces), pieces[0], pieces[-1]) == (8, '"abc"', '"xyz"')


@pytest.mark.sqlite  # PostgreSQL chooses by itself
@pytest.mark.parametrize("rare", [(1, 2), (2, 3), (4, 8), (50, 100)])
def test_a_search_goes_by_the_rarest_pieces(
    world: World, monkeypatch: pytest.MonkeyPatch, rare: tuple[int, int]
) -> None:
    """Whichever of them are frequent, the same devices are found."""
    monkeypatch.setattr(device_search, "_RARE", rare)
    for number in range(12):
        world.bind(world.register(f"BP-{number:04}", name=f"Ward {number % 3} bed {number}"), f"eu_{number:06}")
    check_index(world)
    for text in ("BP-0007", "bp-", "ward 1 bed", "eu_000011", "000011", "bed 11", "1 bed 1", "no such", "dev_"):
        assert found(world, search=text) == expected(world, text), text


@pytest.mark.parametrize("beats", [0, 3])
def test_few_and_many_give_the_same_pages(world: World, monkeypatch: pytest.MonkeyPatch, beats: int) -> None:
    """For every filter, sort and total: those that an index finds, and those that a look at every device finds."""
    ids = [world.bound(f"SN-{number}")[0] for number in range(6)]
    world.register("SN-9", model="bota_note", name="Ward")
    for device_id in ids[:beats]:
        world.beat(device_id, battery_percent=5, flags=4)
    for number, device_id in enumerate(ids):
        world.update(device_id, name=f"n{number % 2}", tags=["all", *(["odd"] if number % 2 else []), f"t{number}"])
    world.reset(ids[0])
    world.delete(ids[5])
    queries = [
        {"status": "bound"}, {"status": "unbound"}, {"connection": "online"}, {"connection": "offline"},
        {"condition": "low_battery"}, {"condition": "storage_full"}, {"condition": "reset_pending"},
        {"model": "bota_note"}, {"end_user_id": "eu_1"}, {"search": "SN-"}, {"search": "SN-1", "status": "bound"},
        {"status": "bound", "sort": "name", "total": True}, {"search": "ward", "total": True, "offset": 0},
        {"status": "bound", "limit": 2, "offset": 1}, {"tag": ["all"]}, {"tag": ["odd", "all"], "sort": "name"},
        {"tag": ["t5"]}, {"tag": ["all"], "search": "n1"}, {"tag": ["t1", "t2"]}, {"tag": ["all", "all"], "limit": 2},
        {"tag": ["all"], "sort": "name", "order": "desc", "limit": 3}, {"tag": ["odd"], "status": "bound", "offset": 1},
    ]  # fmt: skip
    for asked in queries:
        query = ListDevices.model_validate(asked)
        answers = []
        for few, most_sorted in ((0, -1), (0, device_list.SORTED), (device_candidates.FEW, -1)):
            monkeypatch.setattr(device_candidates, "FEW", few)
            monkeypatch.setattr(device_list, "SORTED", most_sorted)
            rows = device_list.page(world.view, world.project_id, query)
            answers.append(([row.device.id for row in rows], device_totals.total(world.view, world.project_id, query)))
        assert answers[0] == answers[1] == answers[2], asked
