"""``gateway jobs`` beside a gateway that works: a job that aborts itself, watched by a program and at a terminal."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.workers.jobs import JobWorker
from tests.e2e.program import clean_environment, run, script
from tests.http.support import Api, Json, body, serving
from tests.support.pty import GUARD_SECONDS, at_terminal
from tests.support.receipts import receipt_of
from tests.support.wait import eventually

RECALL = ("jobs", "create", "--name", "Recall 12", "--action", "factory_reset")


async def _taken_in(seconds: float) -> bool:
    del seconds
    return True


@asynccontextmanager
async def working(data_dir: Path) -> AsyncIterator[Api]:
    """A gateway's API over HTTP, and its worker of jobs."""
    async with serving(data_dir) as api, asyncio.TaskGroup() as group:
        worker = group.create_task(JobWorker(api.store, _taken_in).run())
        yield api
        worker.cancel()


async def fails(api: Api, bound: Json) -> None:
    """A device that takes its reset and says that it failed."""
    device = api.as_(bound["device_token"])
    told: list[Json] = []

    async def has_a_command() -> bool:
        told.extend(body(await device.post("/v1/devices/me/heartbeat"), 200).get("commands") or [])
        return bool(told)

    await eventually(has_a_command, "the device is told of its reset", guard_seconds=GUARD_SECONDS)
    (command,) = told
    for status in ("delivered", "failed"):
        error = {"error": {"code": "flash_error", "message": "The flash is worn."}} if status == "failed" else {}
        ack = {"status": status, "receipt": receipt_of(bound["device_token"], command, status), **error}
        body(await device.post(f"/v1/devices/me/commands/{command['id']}/ack", json=ack), 200)


async def test_a_job_that_aborts_itself_is_watched(tmp_path: Path) -> None:
    """Each change is a JSON document; the exit code is 9; what waited for its turn never gets one."""
    async with working(tmp_path) as api:
        fleet = [await api.bound(f"BP-{number}") for number in range(6)]
        environment = clean_environment(GATEWAY_API_KEY=api.key, GATEWAY_URL=api.url)
        listed = "".join(f"{each['id']}\n" for each in fleet)
        options = ("--per-minute", "60", "--abort-percent", "50", "--abort-min", "2", "--confirm-count", "6")
        (tmp_path / "ids.txt").write_text(listed)
        command = (*RECALL, "--from-file", str(tmp_path / "ids.txt"), *options, "--watch", "--json")
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(run(script("gateway"), *command, environment=environment))
            failing = [group.create_task(fails(api, each)) for each in fleet[:2]]
            outcome = await watching
            assert all(each.done() for each in failing)
        assert outcome.code == 9, outcome.err
        seen = [json.loads(line) for line in outcome.out.splitlines()]
        assert (seen[0]["status"], seen[-1]["status"]) == ("running", "aborted")
        assert seen[-1]["counts"]["failed"] == 2
        assert "2 of 2" in seen[-1]["aborted_because"]
        devices = await run(
            script("gateway"), "jobs", "devices", seen[-1]["id"], "--outcome", "failed", environment=environment
        )
        assert devices.out.count("flash_error") == 2


async def test_a_job_is_confirmed_and_followed_at_a_terminal(tmp_path: Path) -> None:
    """The count is typed; a bar shows how far the job is, until it aborts itself; a wrong count does nothing."""
    async with working(tmp_path) as api:
        fleet = [await api.bound(f"BP-{number}") for number in range(3)]
        environment = clean_environment(GATEWAY_API_KEY=api.key, GATEWAY_URL=api.url)
        command = (*RECALL, "--all", "--abort-percent", "100", "--abort-min", "1", "--watch")
        async with at_terminal(script("gateway"), *command, environment=environment) as terminal:
            await terminal.shows("'Recall 12' will do factory_reset on 3 devices: 3 would_queue")
            await terminal.shows("Type the number of devices to go on: ")
            terminal.type("4\n")
            await terminal.shows("That is not the number of devices. Nothing was done.")
            assert await terminal.ended() == 1
        assert body(await api.back_end.get("/v1/jobs"), 200)["data"] == []
        async with at_terminal(script("gateway"), *command, environment=environment) as terminal:
            await terminal.shows("Type the number of devices to go on: ")
            terminal.type("3\n")
            await terminal.shows("0/3")
            await terminal.shows("3 queued")
            await fails(api, fleet[0])
            await terminal.shows("1/3")
            await terminal.shows("aborted")
            await terminal.shows("2 devices still get what was queued. To take that back: gateway jobs cancel job_")
            assert await terminal.ended() == 9
