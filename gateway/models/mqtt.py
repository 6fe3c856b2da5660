"""What travels over MQTT and nowhere else: events as integrators get them, refusals, the gateway's own status."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from gateway.models.events import EventType
from gateway.models.fields import Outbound


class CloudEvent(Outbound):
    """An event as it goes out over MQTT: CloudEvents 1.0, structured mode, JSON."""

    specversion: Literal["1.0"] = "1.0"
    id: str = Field(description="The same as in the audit trail; one that comes twice has the same.")
    source: str = Field(description="`/gateways/` and the id of the gateway.")
    type: str = Field(
        json_schema_extra={"enum": [str(each) for each in EventType if each.is_of_device]},
        description="What happened, such as `reset.completed`.",
    )
    subject: str = Field(description="The id of the device.")
    time: str = Field(description="When it happened; RFC 3339 in UTC.")
    datacontenttype: Literal["application/json"] = "application/json"
    projectid: str = Field(description="The project of the device; an extension of CloudEvents.")
    data: dict[str, Any] = Field(
        description="`device_id`, `actor` (a key, a device, `gateway`, or `cli` for the command line), `actor_name` "
        "(the name of the key, where one acted) and what belongs to the event."
    )


class RefusedMessage(Outbound):
    """Why the gateway did not take a message of a device."""

    code: str = Field(description="For programs: why the message was refused.")
    message: str = Field(description="What is wrong, and what to do.")
    field: str | None = Field(description="Which field of the message, where it is one.")


class GatewayStatus(Outbound):
    """The gateway's online and offline messages, and its last will."""

    status: Literal["online", "offline"] = Field(description="`online`, or `offline`, which is also the last will.")
    version: str
    started_at: str = Field(description="When this gateway process began; RFC 3339 in UTC.")
    registry_id: str | None = Field(description="Which registry it serves; a backup has the same.")
    epoch_id: str | None = Field(description="The registry's epoch: another one after each restore.")
    event_seq: int | None = Field(description="How many events were written when this was said.")
    instance: str = Field(description="Which process of the gateway; another one after each start.")
    connected_at: str = Field(description="When this process connected to the broker last; RFC 3339 in UTC.")


class GatewayMark(Outbound):
    """What a gateway sends itself through the broker, and its answer to another gateway's."""

    gateway_id: str
    instance: str
    started_at: str
    mark: str
    answers: str | None = None
