"""What operators do with jobs, through the gateway's HTTP application."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

from device_sim.errors import SimulatorError
from gateway.core.clock import SECOND_MS, to_rfc3339
from tests.simulation.operators import Operators

_TRY_AGAIN_SECONDS: Final = 0.4
_CREATED: Final = 201
_UNKNOWN: Final = "dev_01ARZ3NDEKTSV4RRFFQ69G5FAV"


class JobOperators(Operators):
    """Each method is a kind of step. Changes are made to the newest job."""

    async def create_job(self, *, tries: int, **facts: Any) -> None:
        """Create a job, again with the same Idempotency-Key until an answer arrives."""
        world = self._world
        name = f"job-{world.loop.time():.3f}"
        content = json.dumps({"name": name, **self._body(**facts)}).encode()
        for _ in range(tries):
            try:
                status, answer = await self._api.exchange(
                    "POST", "/v1/jobs", content, world.job_key, idempotency_key=name
                )
            except SimulatorError:
                await asyncio.sleep(_TRY_AGAIN_SECONDS)
                continue
            world.log("operator", f"POST job → {status}", job=answer.get("id"), name=name, error=answer.get("error"))
            if status == _CREATED:
                world.jobs.record_answer(answer["id"], answer["counts"]["total"])
                world.check()
            return

    def _body(
        self,
        *,
        targets: str,
        unknown: bool,
        type: str,  # noqa: A002 - the contract's name
        ttl: int,
        per_minute: int,
        ramp: tuple[int, int] | None,
        abort: tuple[int, int] | None,
        start_in: float | None,
    ) -> dict[str, Any]:
        world = self._world
        ids = world.shelf_ids if targets == "shelf" else [each.id for each in world.devices]
        named = {"device_ids": [*ids, *([_UNKNOWN] if unknown else [])]}
        start = None if start_in is None else to_rfc3339(world.clock() + int(start_in * SECOND_MS))
        return {
            "action": {"type": type} if type == "factory_reset" else {"type": type, "ttl_seconds": ttl},
            "targets": {"filter": {}} if targets == "all" else named,
            "pace": {
                "per_minute": per_minute,
                "ramp": None if ramp is None else {"from_per_minute": ramp[0], "double_after": ramp[1]},
            },
            "abort": None if abort is None else {"failed_percent": abort[0], "min_done": abort[1]},
            "start_at": start,
        }

    async def repeat_bulk_reset(self, *, devices: list[int], tries: int, pause: float) -> None:
        """Ask for the reset of several, again with the same Idempotency-Key until an answer arrives."""
        world, since = self._world, self._world.model.commits
        targets = [world.devices[each] for each in devices]
        content = json.dumps({"device_ids": [each.id for each in targets]}).encode()
        for _ in range(tries):
            try:
                status, answer = await self._api.exchange(
                    "POST", "/v1/devices/bulk/reset", content, world.job_key, idempotency_key=f"bulk-{since}"
                )
            except SimulatorError:
                await asyncio.sleep(pause)
                continue
            world.log("operator", f"POST bulk reset → {status}", outcomes=answer.get("data"))
            for device, outcome in zip(targets, answer.get("data", ()), strict=False):
                if outcome["outcome"] in ("reset", "already_pending"):
                    world.model.record_answered_reset(world.pk(device), since)
            world.check()
            return

    async def pause_job(self) -> None:
        """Pause it."""
        await self._change_job("pause")

    async def resume_job(self) -> None:
        """Let it go on."""
        await self._change_job("resume")

    async def cancel_job(self) -> None:
        """Cancel it. The devices may lose their resets by that."""
        newest = self._world.jobs.newest
        if newest is not None:
            self._record_cancel(newest)
            await self._change_job("cancel")

    def _record_cancel(self, job_id: str) -> None:
        rows = self._world.rows("SELECT device_pk, command_id FROM job_targets WHERE job_id = ?", job_id)
        self._world.model.cancelled_devices.update(row["device_pk"] for row in rows if row["device_pk"] is not None)
        commands = {row["command_id"] for row in rows if row["command_id"] is not None}
        now = self._world.loop.time()
        self._world.jobs.record_reported({each for each in commands if self._reported_status(each, now) is not None})

    async def _change_job(self, verb: str) -> None:
        newest = self._world.jobs.newest
        if newest is not None:
            answer = await self._api.call("POST", f"/v1/jobs/{newest}/{verb}", {}, bearer=self._world.job_key)
            self._world.log("operator", f"{verb} of the job → {answer['status']}", counts=answer["counts"])
