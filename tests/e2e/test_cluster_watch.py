"""``gateway cluster --watch`` while the database fails over, and while it is away: it goes on, until Ctrl-C."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.core.postgres_address import PostgresAddress
from gateway.store.postgres.engine import open_registry
from tests.e2e.program import Program, run, script, started
from tests.support.postgres import database, execute, unreachable
from tests.support.postgres_pair import PostgresPair
from tests.support.wait import eventually

INTERRUPTED = 130


@asynccontextmanager
async def watching(folder: Path, address: PostgresAddress) -> AsyncIterator[Program]:
    """The command, which has shown the registry once. In the end Ctrl-C ends it."""
    words = ("cluster", "--watch", "--json", "--data-dir", str(folder / "data"), "--database", address.url)
    async with started(Program(folder / "logs", "watch", script("gateway"), *words)) as watch:
        await _shows(watch, 1)
        yield watch
        assert await watch.stop(signal.SIGINT) == INTERRUPTED
        assert "Traceback" not in watch.err


async def test_a_fail_over_is_watched(tmp_path: Path) -> None:
    """The reason has a time and stands there once. Then comes what the promoted server says."""
    with PostgresPair() as pair:
        execute(pair.primary, "CREATE DATABASE registry")
        open_registry(pair.address("registry")).close()
        await pair.replicates()
        async with watching(tmp_path, pair.address("registry")) as watch:
            (standby,) = _reports(watch)[-1]["database"]["standbys"]
            assert standby["state"] == "streaming"
            await asyncio.to_thread(pair.kill_primary)
            await eventually(lambda: "read-only standby" in watch.err, "it says that there is a standby alone")
            seen = len(_reports(watch))
            await asyncio.to_thread(pair.promote)
            await _shows(watch, seen + 1)
            database = _reports(watch)[-1]["database"]
            assert (database["role"], database["standbys"]) == ("primary", [])
            _says_when(watch)


async def test_a_database_that_is_away_is_waited_for(tmp_path: Path) -> None:
    """Without ``--watch`` the command ends with the documented code."""
    address = database(tmp_path)
    async with watching(tmp_path, address) as watch:
        with unreachable(address):
            await eventually(lambda: "cannot be reached" in watch.err, "it says so")
            seen = len(_reports(watch))
            once = await run(script("gateway"), "cluster", "--database", address.url)
            assert (once.code, once.out, len(once.err.splitlines())) == (1, "", 1), once.err
        await _shows(watch, seen + 2)
        _says_when(watch)


async def _shows(watch: Program, number: int) -> None:
    await eventually(lambda: len(_reports(watch)) >= number or not watch.runs, f"it has shown {number} reports")
    assert watch.runs, watch.err


def _reports(watch: Program) -> list[dict[str, Any]]:
    return [json.loads(line) for line in watch.out.splitlines(keepends=True) if line.endswith("\n")]


def _says_when(watch: Program) -> None:
    lines = watch.err.splitlines()
    assert len(set(lines)) == len(lines), "a reason stands there twice"
    for line in lines:
        when, _, reason = line.partition(" ")
        assert when.endswith("Z")
        assert reason.startswith("The registry could not be ")
        assert reason.endswith("It is tried again each second.")
