"""Patience with a Mosquitto that the gateway manages."""

import os
from pathlib import Path

from gateway.broker.mosquitto.supervisor import SECOND_BYTES, START_SECONDS, Supervisor


def test_a_large_store_may_take_longer_to_start(tmp_path: Path) -> None:
    """With a million states Mosquitto needs 10 s of a core before it listens. Missing files add nothing."""
    store, passwords = tmp_path / "mosquitto.db", tmp_path / "passwords"
    supervisor = Supervisor("mosquitto", tmp_path / "mosquitto.conf", store=store, passwords=passwords)
    assert supervisor.start_seconds == START_SECONDS
    for file, seconds in ((store, 146), (passwords, 14)):
        file.touch()
        os.truncate(file, seconds * SECOND_BYTES)
    assert supervisor.start_seconds == START_SECONDS + 146 + 14
