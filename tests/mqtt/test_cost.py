"""What it costs to bring a command to a device, counted: statements, commits, changes of thread."""

from pathlib import Path

import pytest

from gateway.domain import devices
from gateway.store import outbox_sql
from tests.mqtt.support import RESET, on_every_broker, open_testbed
from tests.support.statements import LOOP, READER, WRITER, Statements
from tests.support.wait import eventually


@pytest.mark.sqlite  # on PostgreSQL a look-up waits for the network, so it changes the thread
@on_every_broker
async def test_a_command_is_published_without_a_change_of_thread(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is due is read right after its commit; one more commit notes that the broker has it.

    The writer's thread reads it if the publisher waits for that, else the loop does, and it looks for more afterwards.
    That the command is about to be sent, which a cancel goes by, is written with the command while the link is up.
    """
    statements = Statements(monkeypatch)
    async with open_testbed(kind, tmp_path) as testbed:
        await testbed.start()
        device = await testbed.bound()
        await testbed.settled()
        async with testbed.join(device) as connected:
            await connected.subscribe(device.topic(f"commands/{RESET}"))
            statements.forget()
            await testbed.store.write(lambda tx: devices.reset(tx, testbed.project_id, device.id, "key_test"))
            await connected.read_publish()
            await eventually(lambda: "DELETE outbox" in statements.of(WRITER), "its mark was taken away")
        await eventually(lambda: statements.of(WRITER).count("COMMIT") == 2, "that was committed")
        assert statements.of(WRITER)[-3:] == ["BEGIN IMMEDIATE", "DELETE outbox", "COMMIT"]
        await eventually(lambda: bool(statements.of(LOOP)), "the publisher looks for what is next")
        assert set(statements.of(LOOP)) == {"SELECT outbox"}
        # The worker of access reads there, and may do so once more after all was settled: for credentials alone.
        of_outbox = [text for text in statements.texts(READER) if "outbox" in text]
        assert [text for text in of_outbox if f"o.kind = '{outbox_sql.CREDENTIAL}'" not in text] == []
