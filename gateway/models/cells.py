"""Cells over HTTP: the brokers of the registry as homes of devices, moves and drains."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway.models.fields import Cursor, DeviceId, HasMore, Inbound, Label, NextCursor, Outbound, PageSize

MOST_DEVICES: Final = 500
"""Devices that one request moves: one transaction."""


class Cell(Outbound):
    """A broker of the registry, as the home of devices."""

    broker_id: str = Field(description="Its `broker_id`.")
    host: str | None = Field(description="Host name for devices; null until its gateway has run.")
    port: int | None = Field(description="TCP port for devices.")
    tls: bool | None = Field(description="Whether a device uses TLS there.")
    devices: int = Field(description="How many devices of all projects have it as their home.")
    owner: str | None = Field(description="The id of the gateway that serves it; null when none does.")
    connected: bool = Field(description="Whether that gateway is connected to it and has compared it.")
    followed: bool = Field(description="Whether changes are marked for it; not after ten minutes away.")
    draining: bool = Field(description="Whether no bind and no move chooses it.")


class CellList(Outbound):
    """All brokers of the registry."""

    cells: Literal["any", "home"] = Field(
        description="`home`: a bind gives the device one broker. `any`: every broker serves every device."
    )
    data: list[Cell] = Field(description="The brokers, in the order in which they joined.")


class ListCellDevices(BaseModel):
    """Query of ``GET /cells/{broker_id}/devices``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    limit: PageSize = 100
    cursor: Cursor = None


class CellDeviceList(Outbound):
    """Ids of devices whose home is a broker."""

    data: list[DeviceId] = Field(description="The ids, in the order in which the devices were registered.")
    has_more: HasMore
    next_cursor: NextCursor


class MoveDevices(Inbound):
    """Body of ``POST /cells/{broker_id}/devices``."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"device_ids": ["dev_01JD3M5QZ8V9T2R4W6X7Y8Z9AB"]}]})

    device_ids: Annotated[
        list[Label], Field(min_length=1, max_length=MOST_DEVICES, description="One that is there twice counts once.")
    ]


class MoveFromCell(Inbound):
    """Body of ``POST /cells/{broker_id}/move``."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"to": "cell_2"}]})

    to: Annotated[Label, Field(description="The `broker_id` of the new home.")]
    cursor: Annotated[Label | None, Field(description="`next_cursor` of the answer before. Leave it out at first.")] = (
        None
    )


class MovedDevices(Outbound):
    """What a move has done, by ids of devices."""

    moved: list[DeviceId] = Field(description="They have the new home.")
    unchanged: list[DeviceId] = Field(description="They had it already.")
    wiping: list[DeviceId] = Field(
        description="They have a reset and are wiping themselves, so they stay for now. Move them again later."
    )
    next_cursor: str | None = Field(
        description="The `cursor` of the next request, where more devices of a broker are to be moved; else null."
    )


class DrainBroker(Inbound):
    """Body of ``POST /cells/{broker_id}/drain``."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"draining": True}]})

    draining: Annotated[bool, Field(description="False: it takes devices again.")] = True
