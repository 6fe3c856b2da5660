"""Calls that several sections of the runbook need."""

from collections.abc import Sequence
from typing import Any

from tests.e2e.program import run, script
from tests.e2e.runbook_session import RunbookSession
from tests.e2e.support import Site

BROKEN = 7
WORKS = (0, 1)


async def take_backup(session: RunbookSession) -> None:
    """Make the backup where the runbook looks for it."""
    outcome = await run(
        script("gateway"), "backup", str(session.folder / "backup" / "gateway.db"), environment=session.environment
    )
    assert outcome.code == 0, outcome.err


async def bind(site: Site, serial: str, user: str = "eu_1") -> dict[str, Any]:
    """Register a device and bind it; return the answer."""
    device = (await site.http.post("/v1/devices", json={"serial_number": serial})).json()
    return await site.post(f"{device['id']}/bind", {"end_user_id": user})


async def command_statuses(site: Site, ids: Sequence[str]) -> list[str]:
    """Return the status of the newest command of each device."""
    return [(await site.newest(each))["status"] for each in ids]
