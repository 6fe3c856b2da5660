"""Fixtures of the end-to-end tests."""

from pathlib import Path

import pytest

from tests.e2e.runbook_session import RunbookSessions, runbook_session
from tests.support.measured import Measured


@pytest.fixture
def sessions(tmp_path: Path, record_property: Measured) -> RunbookSessions:
    """Return a function that opens a runbook session of this test, whose recovery is measured."""
    return lambda kind="mosquitto", *options: runbook_session(tmp_path, kind, record_property, *options)
