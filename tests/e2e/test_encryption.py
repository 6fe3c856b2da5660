"""A registry whose secrets are encrypted: ``gateway serve`` encrypts it, and does not start without the key."""

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.program import run, script, started

ANYWHERE = ("--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0")


def seed(data: Path) -> bytes:
    """What signs, as it is stored."""
    with closing(sqlite3.connect(data / "gateway.db")) as connection:
        return bytes(connection.execute("SELECT private_key FROM signing_keys").fetchone()[0])


async def test_secrets_are_encrypted_at_the_start_and_need_the_key_afterwards(tmp_path: Path) -> None:
    """The secret is gone from the disk, the same gateway starts again, and one without the key says what it wants."""
    plain = GatewayProcess(tmp_path, keep_ports=False)
    async with started(plain):
        pass
    clear = seed(plain.data)
    assert len(clear) == 32
    key = tmp_path / "encryption.key"
    assert (await run(script("gateway"), "secrets", "new-key", str(key))).code == 0
    gateway = GatewayProcess(tmp_path, "--encryption-key-file", str(key), keep_ports=False)
    async with started(gateway):
        [told] = gateway.logged("secrets.encrypted")
        assert told["secrets"] == 1
        assert key.read_text().strip() not in gateway.err
        files = [each for each in gateway.data.glob("gateway.db*") if each.is_file()]
        assert [each.name for each in files if clear in each.read_bytes()] == []
    async with started(gateway):
        pass
    stored = seed(gateway.data)
    refused = await run(script("gateway"), "serve", "--data-dir", str(gateway.data), *ANYWHERE)
    assert refused.code == 1
    assert f"encrypted under the key {told['key']}. Set encryption_key_file" in refused.err
    doctor = await run(script("gateway"), "doctor", "--data-dir", str(gateway.data))
    assert "encryption_key_file" in doctor.out
    assert seed(gateway.data) == stored
