"""Jobs: states, queries and answers (contract, section 8). Their creation: :mod:`gateway.models.job_requests`."""

from __future__ import annotations

import enum
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.models.fields import CreatedAt, Cursor, HasMore, NextCursor, Outbound, PageSize

DRY_RUN_SHOWN: Final = 1_000
"""Devices that a dry run lists."""


class JobStatus(enum.StrEnum):
    """Where a job stands; the last three are final."""

    SCHEDULED = "scheduled"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    ABORTED = "aborted"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing more is queued, and never will be."""
        return self in (JobStatus.COMPLETED, JobStatus.ABORTED, JobStatus.CANCELLED)


class Outcome(enum.StrEnum):
    """What became of a target so far; ``waiting`` for its turn, and two more that still change."""

    WAITING = "waiting"
    QUEUED = "queued"
    DELIVERED = "delivered"
    EXECUTED = "executed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


ENDS: Final = (Outcome.EXECUTED, Outcome.FAILED, Outcome.CANCELLED, Outcome.SKIPPED)
"""Outcomes that do not change any more."""
COUNTED: Final = tuple(each for each in Outcome if each is not Outcome.WAITING)


class SkipReason(enum.StrEnum):
    """Why nothing was done to a target."""

    NOT_FOUND = "not_found"
    DELETED = "deleted"
    ALREADY_PENDING = "already_pending"
    BOUND_ANEW = "bound_anew"
    NOT_BOUND = "not_bound"
    COMMAND_PENDING = "command_pending"


class ListJobs(BaseModel):
    """Query of ``GET /jobs``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: Annotated[JobStatus | None, Field(description="Filter by status.")] = None
    limit: PageSize = 20
    cursor: Cursor = None


class ListJobDevices(BaseModel):
    """Query of ``GET /jobs/{id}/devices``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    outcome: Annotated[
        list[Outcome] | None, Field(description="Filter by outcome; repeat it for targets with any of several.")
    ] = None
    limit: PageSize = 20
    cursor: Cursor = None


class ShowJobProgress(BaseModel):
    """Query of ``GET /jobs/{id}/progress``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    points: Annotated[int, Field(ge=2, le=1_000, description="At most so many points.")] = 200


class JobCounts(Outbound):
    """Targets by their outcome now. What is missing from the total waits for its turn."""

    total: int = Field(description="All targets.")
    queued: int = Field(description="The command is made; the device has not reported it as delivered.")
    delivered: int = Field(description="The device has reported it as delivered, not more.")
    executed: int = Field(description="The device has reported it as executed.")
    failed: int = Field(description="The device has reported a failure, or the command has expired.")
    cancelled: int = Field(description="Taken back, by this job or otherwise; also targets that never got a turn.")
    skipped: int = Field(description="Nothing was done; each target says why.")


class ShownAction(Outbound):
    """What a job does to each device."""

    type: str = Field(description="`factory_reset`, or the type of a command.")
    params: dict[str, Any] = Field(description="The params of each command.")
    ttl_seconds: int | None = Field(description="Seconds until a command expires; null for a factory reset.")


class ShownRamp(Outbound):
    """A slow start."""

    from_per_minute: int = Field(description="Devices per minute at the start.")
    double_after: int = Field(description="Seconds after which the rate doubles.")


class ShownPace(Outbound):
    """The pace of a job."""

    per_minute: int = Field(description="Devices per minute.")
    ramp: ShownRamp | None = Field(description="The slow start; null without one.")


class ShownAbort(Outbound):
    """When a job stops by itself."""

    failed_percent: int = Field(description="From so many percent of failures on.")
    min_done: int = Field(description="Once so many have been executed or have failed.")


class Job(Outbound):
    """A job as the API shows it. Times are RFC 3339 in UTC."""

    id: str = Field(description="`job_…`; ids sort by time.")
    name: str = Field(description="For people.")
    reason: str | None = Field(description="The reason that was given.")
    action: ShownAction = Field(description="What it does to each device.")
    status: JobStatus = Field(description="Where it stands.")
    counts: JobCounts = Field(description="Targets by outcome.")
    pace: ShownPace = Field(description="How fast it goes.")
    abort: ShownAbort | None = Field(description="When it stops by itself; null: never.")
    created_by: str = Field(description="Who created it: the id of a key, `user:…` for a person, or `cli`.")
    created_by_name: str | None = Field(
        description="The name that the key, the person or the command line's user had then. Null without one, and "
        "where it holds an end user's id."
    )
    created_at: CreatedAt
    start_at: str | None = Field(description="When it was to start; null: at once.")
    started_at: str | None = Field(description="When it started; null before.")
    paused_at: str | None = Field(description="Since when it is paused; null unless it is.")
    finished_at: str | None = Field(description="When it became final; null before.")
    aborted_because: str | None = Field(description="Why it was aborted; null unless it was.")
    rate_per_minute: int | None = Field(description="Devices per minute at present; null unless it is running.")


class JobList(Outbound):
    """A page of jobs, newest first."""

    data: list[Job] = Field(description="The page, newest first.")
    has_more: HasMore
    next_cursor: NextCursor


class JobDevice(Outbound):
    """A target of a job, and what became of it."""

    device_id: str = Field(description="The device, as it was named if it is unknown.")
    serial_number: str | None = Field(description="Its serial number; null where it is unknown.")
    outcome: Outcome = Field(description="What became of it so far.")
    reason: str | None = Field(
        description="Of `skipped`: why. Of `failed`: the device's error code, or `expired`. Null otherwise."
    )
    command_id: str | None = Field(description="The command that this job has queued; null without one.")
    changed_at: str | None = Field(description="When its outcome last changed; null while it waits.")


class JobDeviceList(Outbound):
    """A page of targets, in the order of their turns."""

    data: list[JobDevice] = Field(description="The page.")
    has_more: HasMore
    next_cursor: NextCursor


class JobProgressPoint(Outbound):
    """How far a job was."""

    at: str = Field(description="The moment.")
    done: int = Field(description="Targets whose outcome was final by then.")
    failed: int = Field(description="Those of them that had failed.")


class JobProgress(Outbound):
    """The progress of a job over time, from its start to now or to its end."""

    data: list[JobProgressPoint] = Field(description="Oldest first; a point where something has changed.")


class JobPreviewDevice(Outbound):
    """What would become of one device."""

    device_id: str = Field(description="The device, as it was named if it is unknown.")
    outcome: Literal["would_queue", "skipped"] = Field(description="Whether its command would be queued.")
    reason: SkipReason | None = Field(description="Why it would be skipped; null otherwise.")


class JobPreviewWaits(Outbound):
    """Devices that the gateway cannot reach now, of those that are not skipped; each counts once."""

    offline: int = Field(description="Offline now.")
    never_seen: int = Field(description="Never heard.")
    bluetooth_only: int = Field(description="Last seen over Bluetooth, by a relay, which brings no command.")


class JobPreview(Outbound):
    """What a job would do; nothing was changed."""

    total: int = Field(description="Number of targets.")
    counts: dict[str, int] = Field(description="Number of devices by `would_queue`, or by the reason to skip them.")
    waits: JobPreviewWaits = Field(
        description="How many of `would_queue` wait until they can be reached. A factory reset never expires."
    )
    devices: list[JobPreviewDevice] = Field(description=f"The first {DRY_RUN_SHOWN:,} of them.")
    has_more: bool = Field(description="Whether there are more devices than are shown.")
