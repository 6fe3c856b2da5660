"""Webhooks and deliveries as they travel: bodies, queries and answers of ``/v1/webhooks`` (contract, section 5)."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema

from gateway.core.webhook_urls import MAX_URL_LENGTH, WebhookUrl
from gateway.models.events import Event, EventType
from gateway.models.fields import CreatedAt, Cursor, HasMore, Inbound, NextCursor, Outbound, PageSize, Text

EVERY: Final = "*"
_TYPES: Final = (EVERY, *EventType)
_DESCRIPTION_LENGTH: Final = 256
MOST_OVERLAP_SECONDS: Final = 30 * 86_400


def _url(text: str) -> str:
    WebhookUrl.parse(text)
    return text


def _known(kind: str) -> str:
    if kind not in _TYPES:
        raise ValueError(f"should be one of: {', '.join(_TYPES)}")
    return kind


def _distinct(types: list[str]) -> list[str]:
    if EVERY in types and len(types) > 1:
        raise ValueError('should be ["*"] alone for every type, or a list of types')
    return list(dict.fromkeys(types))


def _list_of(words: list[str], most: int) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string", "enum": words}, "minItems": 1, "maxItems": most}


Url = Annotated[str, StringConstraints(max_length=MAX_URL_LENGTH), AfterValidator(_url)]
Type = Annotated[str, AfterValidator(_known), Field(json_schema_extra={"enum": list(_TYPES)})]
Types = Annotated[
    list[Type],
    Field(min_length=1, max_length=len(_TYPES)),
    AfterValidator(_distinct),
    WithJsonSchema({"anyOf": [_list_of([EVERY], 1), _list_of([*EventType], len(_TYPES))]}),
]
Description = Annotated[Text, StringConstraints(max_length=_DESCRIPTION_LENGTH)]
_URL_IS = (
    "`https://…`; `http://` only where the setting `webhook_allow_private` is on, and for the gateway's own machine "
    "with the setting `webhook_allow_loopback`."
)
_EVENTS_ARE = 'Types of events, or `["*"]` for every type, later ones too.'


class CreateWebhook(Inbound):
    """Body of ``POST /webhooks``."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "url": "https://example.com/hooks/devices",
                    "events": ["reset.completed", "reset.failed"],
                    "description": "Returns desk",
                }
            ]
        }
    )

    url: Url = Field(description=_URL_IS)
    events: Types = Field(default=[EVERY], description=_EVENTS_ARE)
    description: Annotated[
        Description | None, Field(description="A note for people. The gateway does not interpret it.")
    ] = None
    enabled: Annotated[
        bool,
        Field(
            description="Whether events are sent to this webhook. Events that happen while it is disabled are not "
            "kept for later."
        ),
    ] = True


class UpdateWebhook(Inbound):
    """Body of ``PATCH /webhooks/{id}``: what is left out stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"enabled": False}]})

    url: Url = Field(default_factory=str, description=_URL_IS)
    events: Types = Field(default_factory=list, description=_EVENTS_ARE)
    description: Annotated[Description | None, Field(description="Null clears it.")] = None
    enabled: bool = Field(
        default_factory=bool,
        description="Whether events are sent to this webhook. Events that happen while it is disabled are not kept "
        "for later.",
    )

    @property
    def changes(self) -> dict[str, Any]:
        """What is to be changed, by field."""
        return self.model_dump(exclude_unset=True)


class RotateWebhook(Inbound):
    """Body of ``POST /webhooks/{id}/rotate``."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"overlap_seconds": 86_400}]})

    overlap_seconds: Annotated[int, Field(ge=0, le=MOST_OVERLAP_SECONDS)] = Field(
        default=86_400, description="How long the secret before signs, too. 0: not at all."
    )


class ListWebhooks(BaseModel):
    """Query of ``GET /webhooks``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    limit: PageSize = 20
    cursor: Cursor = None


DeliveryStatus = Literal["pending", "delivered", "failed"]


class ListDeliveries(BaseModel):
    """Query of ``GET /webhooks/{id}/deliveries``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: Annotated[DeliveryStatus | None, Field(description="Filter by delivery status.")] = None
    limit: PageSize = 20
    cursor: Cursor = None


class Webhook(Outbound):
    """Where events are sent."""

    id: str = Field(description="`wh_…`; ids sort by time.")
    url: str = Field(description="The URL that events are sent to.")
    events: list[str] = Field(description=_EVENTS_ARE)
    description: str | None = Field(description="A note for people. The gateway does not interpret it.")
    enabled: bool = Field(description="While it is false nothing is sent, and what happens then is left out.")
    created_at: CreatedAt
    rotated_at: str | None = Field(description="When it got its present secret; null when it has its first one.")
    previous_secret_expires_at: str | None = Field(
        description="Until when the secret before the last rotation signs, too; null without an overlap."
    )


class CreatedWebhook(Webhook):
    """A webhook with its new secret, which is shown this once."""

    secret: str = Field(description="`whsec_` and the base64 of the 24 bytes that sign (Standard Webhooks).")


class WebhookList(Outbound):
    """A page of webhooks, newest first."""

    data: list[Webhook] = Field(description="The page, newest first.")
    has_more: HasMore
    next_cursor: NextCursor


class Delivery(Outbound):
    """One event on its way to one webhook. Times are RFC 3339 in UTC."""

    id: str = Field(description="`dlv_…`; ids sort by time.")
    webhook_id: str = Field(description="The id of the webhook.")
    event_id: str = Field(description="The event that is delivered; the header `webhook-id` repeats it.")
    event_type: str = Field(description="The type of that event.")
    status: DeliveryStatus = Field(
        description="`pending` until a try succeeds (`delivered`) or the gateway gives up (`failed`)."
    )
    attempts: int = Field(description="Tries so far; six are made. A replay counts from 0 again.")
    response_status: int | None = Field(description="HTTP status of the last answer; null without an answer.")
    error: str | None = Field(description="Why the last try failed; null when it did not.")
    next_attempt_at: str | None = Field(description="When it is tried next; null when it is not.")
    last_attempt_at: str | None = Field(description="When it was last tried; null before the first try.")
    created_at: str = Field(description="When the delivery was created.")


class DeliveryList(Outbound):
    """A page of deliveries, those of the newest events first."""

    data: list[Delivery] = Field(description="The page, newest first.")
    has_more: HasMore
    next_cursor: NextCursor


class WebhookTest(Outbound):
    """What came back from a test."""

    delivered: bool = Field(description="Whether the answer was a 2xx, in time.")
    response_status: int | None = Field(
        description="The HTTP status that the receiver answered; null when there was no answer."
    )
    response_body: str | None = Field(description="The first 1,024 characters of the answer.")
    error: str | None = Field(description="Why the delivery failed; null when it succeeded.")
    duration_ms: int = Field(description="From the first byte sent to the end of the answer.")
    event: Event = Field(description="The event that was sent.")
