"""Events of the audit trail: types, queries and answers (contract, section 5)."""

from __future__ import annotations

import enum
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from gateway.models.fields import (
    CreatedAt,
    Cursor,
    DeviceId,
    EventId,
    HasMore,
    NextCursor,
    Outbound,
    PageSize,
    QueryInstant,
)

_ADMINISTRATIVE: Final = frozenset(
    {"project", "key", "account", "signing_key", "webhook", "auth", "end_user", "session", "job", "broker"}
)


class EventType(enum.StrEnum):
    """What can happen, as the audit trail calls it (contract, section 5; from ``acknowledgement.late`` on ours)."""

    DEVICE_REGISTERED = "device.registered"
    DEVICE_UPDATED = "device.updated"
    DEVICE_BOUND = "device.bound"
    DEVICE_UNBOUND = "device.unbound"
    DEVICE_DELETED = "device.deleted"
    DEVICE_RESTORED = "device.restored"
    DEVICE_MOVED = "device.moved"
    DEVICE_ONLINE = "device.online"
    DEVICE_OFFLINE = "device.offline"
    DEVICE_LOW_BATTERY = "device.low_battery"
    DEVICE_STORAGE_FULL = "device.storage_full"
    RESET_REQUESTED = "reset.requested"
    RESET_DELIVERED = "reset.delivered"
    RESET_COMPLETED = "reset.completed"
    RESET_FAILED = "reset.failed"
    RESET_SUPERSEDED = "reset.superseded"
    COMMAND_CREATED = "command.created"
    COMMAND_DELIVERED = "command.delivered"
    COMMAND_EXECUTED = "command.executed"
    COMMAND_FAILED = "command.failed"
    COMMAND_EXPIRED = "command.expired"
    COMMAND_CANCELLED = "command.cancelled"
    GRANT_KEY_CHANGED = "device.grant_key_changed"
    TOKEN_REFRESHED = "token.refreshed"  # noqa: S105 - no password
    TOKEN_REVOKED = "token.revoked"  # noqa: S105 - no password
    ACKNOWLEDGEMENT_LATE = "acknowledgement.late"
    ACKNOWLEDGEMENT_REFUSED = "acknowledgement.refused"
    PROJECT_CREATED = "project.created"
    KEY_CREATED = "key.created"
    KEY_UPDATED = "key.updated"
    KEY_EXPIRING = "key.expiring"
    KEY_ROTATED = "key.rotated"
    KEY_REVOKED = "key.revoked"
    ACCOUNT_CREATED = "account.created"
    ACCOUNT_ROTATED = "account.rotated"
    ACCOUNT_REVOKED = "account.revoked"
    BROKER_UPDATED = "broker.updated"
    SIGNING_KEY_ROTATED = "signing_key.rotated"
    SIGNING_KEY_DELIVERY = "signing_key.delivery"
    SIGNING_KEY_LEAKED = "signing_key.leaked"
    WEBHOOK_CREATED = "webhook.created"
    WEBHOOK_UPDATED = "webhook.updated"
    WEBHOOK_ROTATED = "webhook.rotated"
    WEBHOOK_DELETED = "webhook.deleted"
    AUTH_REFUSED = "auth.refused"
    END_USER_ERASED = "end_user.erased"
    SESSION_STARTED = "session.started"
    SESSION_ENDED = "session.ended"
    JOB_CREATED = "job.created"
    JOB_STARTED = "job.started"
    JOB_PAUSED = "job.paused"
    JOB_RESUMED = "job.resumed"
    JOB_COMPLETED = "job.completed"
    JOB_ABORTED = "job.aborted"
    JOB_CANCELLED = "job.cancelled"

    @property
    def is_of_device(self) -> bool:
        """Whether it happens to a device: only these events are published over MQTT."""
        return self.partition(".")[0] not in _ADMINISTRATIVE


PAGE: Final = 20
"""Items of a page unless ``limit`` is given."""
ActorId = Annotated[
    Annotated[str, StringConstraints(min_length=1, max_length=300, pattern=r"^[^\x00-\x1f\x7f]+$")] | None,
    Field(
        description="Filter by who did it: the id of a key (`key_…`) or a device, `user:…` for a person, `gateway`, or "
        "`cli` for the command line."
    ),
]


class ListEvents(BaseModel):
    """Query of ``GET /devices/{id}/events``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    actor: ActorId = None
    since: Annotated[QueryInstant | None, Field(description="Created then or later; RFC 3339.")] = None
    until: Annotated[QueryInstant | None, Field(description="Created before then; RFC 3339.")] = None
    limit: Annotated[PageSize | None, Field(description=f"Maximum number of items: {PAGE} unless given.")] = None
    cursor: Cursor = None

    @property
    def page_size(self) -> int:
        """Return the number of items of a page of JSON."""
        return self.limit or PAGE


class ListProjectEvents(ListEvents):
    """Query of ``GET /events``."""

    type: Annotated[EventType | None, Field(description="Filter by event type.")] = None
    device_id: Annotated[DeviceId | None, Field(description="Filter by device.")] = None
    limit: Annotated[
        PageSize | None, Field(description=f"Maximum number of items: {PAGE} unless given. CSV has all unless given.")
    ] = None


class StreamEvents(BaseModel):
    """Query of ``GET /events/stream``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Annotated[EventType | None, Field(description="Filter by event type.")] = None
    device_id: Annotated[DeviceId | None, Field(description="Filter by device.")] = None
    actor: ActorId = None
    last_event_id: Annotated[
        EventId | None, Field(description="Where to go on; the header `Last-Event-ID` says the same and comes first.")
    ] = None


class Event(Outbound):
    """Something that happened, as the audit trail keeps it."""

    id: str = Field(description="`evt_…`; ids sort by time.")
    type: str = Field(description="What happened, such as `reset.completed`.")
    created_at: CreatedAt
    data: dict[str, Any] = Field(
        description="Facts of the event. `device_id`: the device, if it is about one. `actor`: the id of a key or a "
        "device, `user:…` for a person, `gateway`, or `cli` for the command line. `actor_name`: the name that the key, "
        "the person or the command line's user had then. `client_address`: the address of a request with an API key."
    )


class EventList(Outbound):
    """A page of events, newest first."""

    data: list[Event] = Field(description="The page, newest first.")
    has_more: HasMore
    next_cursor: NextCursor


class Actor(Outbound):
    """Who has done something in the project, besides devices."""

    actor: str = Field(description="The id of a key, `user:…` for a person, `gateway` or `cli`.")
    name: str | None = Field(description="Its name as the newest of its events has it; null without one.")
    last_event_at: str = Field(description="When it did something last, as far as events are kept.")


class ActorList(Outbound):
    """Who has done something in the project."""

    data: list[Actor] = Field(description="The most recent first; at most 500.")
