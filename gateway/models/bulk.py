"""Resets of many devices in one request: bodies and outcomes (contract, section 2)."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from gateway.models.fields import Inbound, Label, Outbound
from gateway.models.resets import Reason, Recordings

MOST_DEVICES: Final = 1_000


class BulkReset(Inbound):
    """Body of ``POST /devices/bulk/reset``."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"device_ids": ["dev_01JD3M5QZ8V9T2R4W6X7Y8Z9AB"], "dry_run": True}]}
    )

    device_ids: Annotated[
        list[Label],
        Field(min_length=1, max_length=MOST_DEVICES, description="One that is there twice is reset once."),
    ]
    reason: Reason = None
    recordings: Recordings = None
    dry_run: Annotated[bool, Field(description="Say what would happen, and change nothing.")] = False


class BulkCancel(Inbound):
    """Body of ``POST /devices/bulk/reset/cancel``."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"device_ids": ["dev_01JD3M5QZ8V9T2R4W6X7Y8Z9AB"], "dry_run": True}]}
    )

    device_ids: Annotated[
        list[Label],
        Field(min_length=1, max_length=MOST_DEVICES, description="One that is there twice counts once."),
    ]
    dry_run: Annotated[bool, Field(description="Say what would happen, and change nothing.")] = False


class BulkError(Outbound):
    """Why nothing was done to a device."""

    code: str = Field(
        description="As a single reset of this device would have answered. Or `device_already_bound`: it was bound "
        "after a request that broke off and is repeated now."
    )
    message: str = Field(description="For people: what is wrong, and what to do.")


class BulkOutcome(Outbound):
    """What became of one device of a bulk reset."""

    id: str = Field(description="The device, as it was named in the request.")
    outcome: Literal["reset", "already_pending", "not_found", "failed", "would_reset"] = Field(
        description="`would_reset` only with `dry_run`; `failed` when the gateway could not do it, see `error`."
    )
    error: BulkError | None = Field(description="Why nothing was done; null where it was.")


class BulkOutcomes(Outbound):
    """What became of each device, in the order in which they were named."""

    data: list[BulkOutcome] = Field(description="One for each device, in the order of the request.")


class BulkCancelOutcome(Outbound):
    """What became of the open reset of one device."""

    id: str = Field(description="The device, as it was named in the request.")
    outcome: Literal["cancelled", "too_late", "none_open", "not_found", "failed", "would_cancel"] = Field(
        description="`too_late`: the device has said that it has the reset; `would_cancel` only with `dry_run`; "
        "`failed` when the gateway could not do it, see `error`."
    )
    error: BulkError | None = Field(description="Why nothing was done; null when the reset was cancelled.")


class BulkCancelOutcomes(Outbound):
    """What became of each reset, in the order in which the devices were named."""

    data: list[BulkCancelOutcome] = Field(description="One for each device, in the order of the request.")
