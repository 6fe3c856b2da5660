"""What a request costs, counted: statements, commits, changes of thread. A time would say something of the machine."""

from pathlib import Path

import pytest

from tests.http.support import body, serving
from tests.support.statements import LOOP, READER, WRITER, Statements


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> Statements:
    """Those of the gateway that the test starts."""
    return Statements(monkeypatch)


@pytest.mark.sqlite  # it counts SQLite's statements; on PostgreSQL a look-up waits for the network
async def test_a_reset_costs_one_commit_and_one_change_of_thread(tmp_path: Path, statements: Statements) -> None:
    """The caller is looked up where the request is served; all else is one short transaction of the writer."""
    async with serving(tmp_path) as api:
        first, second = await api.bound("BP-1"), await api.bound("BP-2")
        await api.reset(first["id"])
        await api.settled()
        await api.broker.pause()
        statements.forget()
        body(await api.back_end.post(f"/v1/devices/{second['id']}/reset"), 200)
        assert statements.of(LOOP) == ["SELECT api_keys"]
        assert statements.of(READER) == []
        assert statements.of(WRITER) == [
            "BEGIN IMMEDIATE",
            "SELECT devices",  # with its token, the number of its last reset, the salt of the person's pseudonym
            "UPDATE tokens",
            "DELETE device_search_end_users",  # the end user leaves the index of texts
            "UPDATE devices",
            "UPDATE devices",  # the same: SQLite reports it again for its trigger
            "UPDATE devices",  # and for what the trigger executes: it counts the binding
            "INSERT device_search_end_users",  # FTS5 counts its rows
            "INSERT events",
            "UPDATE bindings",  # the binding ends here
            "INSERT commands",
            "INSERT commands",  # again for its trigger,
            "INSERT commands",  # which counts the open reset
            "INSERT outbox",
            "INSERT resets",  # for the certificate
            "INSERT events",
            "COMMIT",
        ]


@pytest.mark.sqlite  # it counts SQLite's statements; on PostgreSQL a look-up waits for the network
async def test_a_device_is_read_without_a_change_of_thread(tmp_path: Path, statements: Statements) -> None:
    """Two look-ups by an index, who calls and what is asked for, and nothing that a busy writer could hold up."""
    async with serving(tmp_path) as api:
        device = await api.bound()
        await api.back_end.get(f"/v1/devices/{device['id']}")
        await api.settled()
        await api.broker.pause()
        for path in ("", "/state"):
            statements.forget()
            body(await api.back_end.get(f"/v1/devices/{device['id']}{path}"), 200)
            assert statements.of(LOOP) == ["SELECT api_keys", "SELECT devices"]
            assert statements.of(READER) == statements.of(WRITER) == []
