"""Lists of factory resets: queries, answers and the summary (contract, section 7)."""

from __future__ import annotations

import enum
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.core.clock import DAY_MS, HOUR_MS, SECOND_MS
from gateway.models.fields import Cursor, DeviceId, HasMore, NextCursor, Outbound, PageSize, QueryInstant

PAGE: Final = 20
"""Items of a page unless ``limit`` is given."""
AGES: Final = tuple(each // SECOND_MS for each in (0, HOUR_MS, DAY_MS, 7 * DAY_MS, 30 * DAY_MS))
"""Seconds at which the classes of age of open resets begin."""


class ResetStatus(enum.StrEnum):
    """How far a reset is: open, or its outcome."""

    OPEN = "open"
    EXECUTED = "executed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"


OUTCOMES: Final = tuple(each for each in ResetStatus if each is not ResetStatus.OPEN)


class ListResets(BaseModel):
    """Query of ``GET /devices/{id}/resets``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: Annotated[ResetStatus | None, Field(description="`open`, or an outcome.")] = None
    since: Annotated[QueryInstant | None, Field(description="Requested or finished then or later; RFC 3339.")] = None
    until: Annotated[QueryInstant | None, Field(description="Requested or finished before then; RFC 3339.")] = None
    time: Annotated[
        Literal["requested_at", "finished_at"],
        Field(description="The time that `since`, `until` and the order go by; `finished_at` leaves open resets out."),
    ] = "requested_at"
    order: Annotated[
        Literal["asc", "desc"], Field(description="`desc`: the newest first. `asc`: the oldest first.")
    ] = "desc"
    cursor: Cursor = None
    limit: Annotated[
        PageSize | None, Field(description=f"Maximum number of items: {PAGE} unless given. CSV has all unless given.")
    ] = None

    @property
    def page_size(self) -> int:
        """Return the number of items of a page of JSON."""
        return self.limit or PAGE


class ListProjectResets(ListResets):
    """Query of ``GET /resets``."""

    device_id: Annotated[DeviceId | None, Field(description="Filter by device.")] = None


class SummarizeResets(BaseModel):
    """Query of ``GET /resets/summary``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    since: Annotated[QueryInstant | None, Field(description="Finished then or later; RFC 3339.")] = None
    until: Annotated[QueryInstant | None, Field(description="Finished before then; RFC 3339.")] = None


class Reset(Outbound):
    """A factory reset: who asked for it, and how it ended."""

    command_id: str = Field(description="The id of its command.")
    device_id: str = Field(description="The id of the device.")
    serial_number: str = Field(description="As it was when the reset was requested.")
    model: str = Field(description="The model of the device.")
    status: ResetStatus = Field(description="`open`, or the outcome.")
    requested_at: str = Field(description="When it was requested.")
    requested_by: str | None = Field(
        description="The id of the key, `user:…` for a person, or `cli`. Null where an earlier version did not keep it."
    )
    requested_by_name: str | None = Field(
        description="The name that the key, the person or the command line's user had then. Null without one, and "
        "where it holds an end user's id."
    )
    reason: str | None = Field(description="The reason that was given.")
    recordings: Literal["keep", "wipe"] = Field(description="What was to be done with recordings.")
    delivered_at: str | None = Field(description="When the device reported that it has the reset.")
    finished_at: str | None = Field(description="When it ended; null while it is open.")
    age_seconds: int | None = Field(description="Seconds since it was requested; null when it has ended.")
    token_revoked_at: str | None = Field(
        description="When the token was revoked by its end; null: it was not, or not yet."
    )
    sessions_closed_at: str | None = Field(description="When the broker had closed the device's sessions after it.")
    retained_cleared_at: str | None = Field(description="When its message was cleared from the broker.")
    certificate_id: str | None = Field(
        description="Its certificate, `cert_…`. Null while it is open, and where it ended under a version without them."
    )
    addendum_id: str | None = Field(description="Its newest addendum, `cert_…`: the device reported something late.")


CSV_COLUMNS: Final = tuple(Reset.model_fields)
"""The columns of a list of resets as CSV."""


class ResetList(Outbound):
    """A page of resets."""

    data: list[Reset] = Field(description="The page, in the requested order.")
    has_more: HasMore
    next_cursor: NextCursor


class OpenResetsByAge(Outbound):
    """Open resets of one class of age."""

    from_seconds: int = Field(description="At least this old.")
    to_seconds: int | None = Field(description="Younger than this; null in the last class.")
    count: int = Field(description="Number of resets.")


class OpenResets(Outbound):
    """How many resets are open, and for how long."""

    count: int = Field(description="Number of open resets.")
    oldest_requested_at: str | None = Field(description="When the oldest of them was requested; null without one.")
    by_age: list[OpenResetsByAge] = Field(description="Classes of age, the youngest first.")


class FinishedResets(Outbound):
    """How many resets ended within the period, by outcome."""

    executed: int = Field(description="The device reported that it wiped itself.")
    failed: int = Field(description="The device reported a failure.")
    cancelled: int = Field(description="Cancelled before the device reported an outcome.")
    superseded: int = Field(description="The device was bound again first.")


class ResetSummary(Outbound):
    """Numbers of resets in this project."""

    open: OpenResets = Field(description="All open resets, whatever the period.")
    finished: FinishedResets = Field(description="Resets that ended within the period.")
