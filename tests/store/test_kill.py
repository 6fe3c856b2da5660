"""``kill -9`` in the middle of writes: what was answered is there, and what is there is whole."""

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from gateway.store import View, open_database

pytestmark = pytest.mark.sqlite
"""A killed process and its file; PostgreSQL's own log holds what was committed."""


def _answered_until_killed(data_dir: Path, answers: int) -> list[str]:
    """Start the process, kill it after so many answers; all the answers it gave."""
    script = Path(__file__).with_name("killed_process.py")
    with subprocess.Popen([sys.executable, str(script), str(data_dir)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = [process.stdout.readline().strip() for _ in range(answers)]
        process.kill()
        rest = process.stdout.read().splitlines(keepends=True)
    return first + [line.strip() for line in rest if line.endswith("\n")]


@pytest.mark.guarantee("G2")
@pytest.mark.parametrize("answers", [1, 50, 333])
def test_answered_writes_survive_a_kill(tmp_path: Path, answers: int) -> None:
    """Each device with its binding, its one reset, its outbox rows and its events, or not at all."""
    answered = _answered_until_killed(tmp_path, answers)
    assert len(answered) >= answers
    with closing(open_database(tmp_path)) as connection:
        view = View(connection)
        assert view.value("PRAGMA integrity_check") == "ok"
        devices = {row["serial_number"]: row["pk"] for row in view.all("SELECT * FROM devices")}
        assert set(answered) <= set(devices)
        for pk in devices.values():
            events = [json.loads(row["data"]) for row in view.all("SELECT data FROM events WHERE device_pk = ?", pk)]
            assert len(events) == 4
            assert view.value("SELECT count(*) FROM commands WHERE device_pk = ? AND status = 'pending'", pk) == 1
            assert view.value("SELECT count(*) FROM outbox WHERE device_pk = ?", pk) == 3
            assert view.value("SELECT state FROM tokens WHERE device_pk = ?", pk) == "reset_only"
