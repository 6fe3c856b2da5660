"""Webhooks and deliveries as they travel: bodies, queries and answers of ``/v1/webhooks`` (contract, section 5)."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema

from gateway.core.webhook_urls import MAX_URL_LENGTH, WebhookUrl
from gateway.models.model import Event, EventType, Inbound, Label, Outbound, Text

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
    description: Description | None = None
    enabled: bool = True


class UpdateWebhook(Inbound):
    """Body of ``PATCH /webhooks/{id}``: what is left out stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"enabled": False}]})

    url: Url = Field(default_factory=str, description=_URL_IS)
    events: Types = Field(default_factory=list, description=_EVENTS_ARE)
    description: Description | None = None
    enabled: bool = Field(default_factory=bool)

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

    limit: Annotated[int, Field(ge=1, le=100)] = 20
    cursor: Label | None = None


DeliveryStatus = Literal["pending", "delivered", "failed"]


class ListDeliveries(BaseModel):
    """Query of ``GET /webhooks/{id}/deliveries``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: DeliveryStatus | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    cursor: Label | None = None


class Webhook(Outbound):
    """Where events are sent."""

    id: str
    url: str
    events: list[str] = Field(description=_EVENTS_ARE)
    description: str | None
    enabled: bool = Field(description="While it is false nothing is sent, and what happens then is left out.")
    created_at: str
    rotated_at: str | None = Field(description="When it got its present secret; null when it has its first one.")
    previous_secret_expires_at: str | None = Field(
        description="Until when the secret before the last rotation signs, too; null without an overlap."
    )


class CreatedWebhook(Webhook):
    """A webhook with its new secret, which is shown this once."""

    secret: str = Field(description="`whsec_` and the base64 of the 24 bytes that sign (Standard Webhooks).")


class WebhookList(Outbound):
    """A page of webhooks, newest first."""

    data: list[Webhook]
    has_more: bool
    next_cursor: str | None


class Delivery(Outbound):
    """One event on its way to one webhook. Times are RFC 3339 in UTC."""

    id: str
    webhook_id: str
    event_id: str
    event_type: str
    status: DeliveryStatus
    attempts: int = Field(description="Tries so far; six are made. A replay counts from 0 again.")
    response_status: int | None = Field(description="HTTP status of the last answer; null without an answer.")
    error: str | None = Field(description="Why the last try failed; null when it did not.")
    next_attempt_at: str | None = Field(description="When it is tried next; null when it is not.")
    last_attempt_at: str | None
    created_at: str


class DeliveryList(Outbound):
    """A page of deliveries, those of the newest events first."""

    data: list[Delivery]
    has_more: bool
    next_cursor: str | None


class WebhookTest(Outbound):
    """What came back from a test."""

    delivered: bool = Field(description="Whether the answer was a 2xx, in time.")
    response_status: int | None
    response_body: str | None = Field(description="The first 1,024 characters of the answer.")
    error: str | None
    duration_ms: int
    event: Event
