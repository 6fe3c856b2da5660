"""Commands and acknowledgements: bodies, queries, answers, and the payload that a device gets (contract, section 3)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from gateway.core.command_types import CommandType
from gateway.models.fields import (
    CreatedAt,
    Cursor,
    Document,
    HasMore,
    Inbound,
    Label,
    NextCursor,
    Outbound,
    PageSize,
    Params,
    Text,
)
from gateway.models.states import CommandStatus


class AckError(Inbound):
    """Why a device did not do what it was told."""

    code: Annotated[Label, StringConstraints(max_length=64)] = Field(
        description="An error code of the firmware, such as `stale_generation`."
    )
    message: Annotated[Text, StringConstraints(max_length=512), Field(description="For people.")] = ""


class Ack(Inbound):
    """What a device says of a command (contract, section 3)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "command_id": "cmd_01JD3M5QZ8V9T2R4W6X7Y8Z9AB",
                    "status": "executed",
                    "result": {
                        "wiped": ["device_token", "pairing", "wifi_networks"],
                        "kept": ["serial_number", "cellular_apn", "last_command_id"],
                    },
                    "receipt": "3q2-7w8Zt1Yp0uXkWm4sRj6nHb9cVd5fGa2eLo8iTzE",
                }
            ]
        }
    )

    command_id: Label = Field(description="The id of the command.")
    status: Literal["delivered", "executed", "failed"] = Field(
        description="`delivered` as soon as the device has it, then `executed` or `failed`."
    )
    result: Annotated[
        Document | None, Field(description="Any JSON object up to 16 KiB. Of a reset: `wiped` and `kept`, two lists.")
    ] = None
    error: Annotated[AckError | None, Field(description="With `failed`: why.")] = None
    receipt: Annotated[
        Label | None,
        Field(
            description="The device's own word: base64url(HMAC-SHA256(SHA-256(token), "
            "`command_id|status|binding_generation`))."
        ),
    ] = None


class CommandAck(Inbound):
    """The same over HTTP, where the path names the command."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"status": "delivered", "receipt": "Xm4sRj6nHb9cVd5fGa2eLo8iTzE3q2-7w8Zt1Yp0ukW"}]
        }
    )

    status: Literal["delivered", "executed", "failed"] = Field(
        description="`delivered` as soon as the device has it, then `executed` or `failed`."
    )
    command_id: Annotated[Label | None, Field(description="Optional: the path names the command.")] = None
    result: Annotated[
        Document | None, Field(description="Any JSON object up to 16 KiB. Of a reset: `wiped` and `kept`, two lists.")
    ] = None
    error: Annotated[AckError | None, Field(description="With `failed`: why.")] = None
    receipt: Annotated[
        Label | None,
        Field(
            description="The device's own word: base64url(HMAC-SHA256(SHA-256(token), "
            "`command_id|status|binding_generation`))."
        ),
    ] = None


class CreateCommand(Inbound):
    """Body of ``POST /devices/{id}/commands``."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"type": "start_recording", "ttl_seconds": 120}]})

    type: CommandType = Field(description="The type of the command.")
    params: Annotated[
        Params | None,
        Field(
            description="Arguments of the command, by its type: any JSON object up to 16 KiB, at most 15 levels deep;"
            " integers within 2^53 - 1."
        ),
    ] = None
    ttl_seconds: Annotated[int, Field(ge=1, le=86_400, description="Seconds until it expires, a day at most.")] = 300
    idempotency_key: Annotated[
        Label | None,
        Field(
            description="A key of your choice. The same key and command again return the same command, as long as the"
            " key is kept."
        ),
    ] = None


class ListCommands(BaseModel):
    """Query of ``GET /devices/{id}/commands``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: Annotated[CommandStatus | None, Field(description="Filter by command status.")] = None
    type: Annotated[CommandType | None, Field(description="Filter by command type.")] = None
    limit: PageSize = 20
    cursor: Cursor = None


class CommandPayload(Outbound):
    """A command as a device gets it, retained on its topic or in the answer to a heartbeat."""

    id: str = Field(description="`cmd_…`, for the acknowledgement.")
    type: CommandType = Field(description="The type of the command.")
    params: dict[str, Any] = Field(
        description="Arguments of the command, by its type: any JSON object up to 16 KiB, at most 15 levels deep;"
        " integers within 2^53 - 1."
    )
    binding_generation: int = Field(description="The device obeys if it holds a token of this generation.")
    created_at: CreatedAt
    expires_at: str | None = Field(description="When the command expires; null if it waits without a limit.")
    grant_token: str = Field(description="JWT (EdDSA) signed by the gateway; see the contract, section 3.")


class CommandError(Outbound):
    """Why a command failed."""

    code: str = Field(description="An error code of the firmware.")
    message: str = Field(description="The error text of the firmware.")


class Command(Outbound):
    """A command as the API shows it."""

    id: str = Field(description="`cmd_…`; ids sort by time.")
    device_id: str = Field(description="The id of the device.")
    type: CommandType = Field(description="The type of the command.")
    status: CommandStatus = Field(description="What the device has reported about the command, never what was sent.")
    params: dict[str, Any] = Field(
        description="Arguments of the command, by its type: any JSON object up to 16 KiB, at most 15 levels deep;"
        " integers within 2^53 - 1."
    )
    binding_generation: int = Field(
        description="The generation of the binding that it is meant for; a device of another refuses it."
    )
    grant_token: str = Field(
        description="JWT (EdDSA) by which a device sees that it is the gateway who asks, for what (`par`, a digest of"
        " the params), and that nothing later was asked before (`seq`)."
    )
    result: dict[str, Any] | None = Field(description="What the device reports about the result; null before.")
    error: CommandError | None = Field(description="Why it failed; null otherwise.")
    created_at: CreatedAt
    expires_at: str | None = Field(description="When the command expires; null if it waits without a limit.")
    delivered_at: str | None = Field(description="When the device reported that it has the command; null before.")
    executed_at: str | None = Field(description="When the device reported that it executed the command; null before.")


class CommandList(Outbound):
    """A page of commands, newest first."""

    data: list[Command] = Field(description="The page, newest first.")
    has_more: HasMore
    next_cursor: NextCursor


class PendingCommands(Outbound):
    """The open commands of a device, oldest first."""

    data: list[CommandPayload] = Field(description="The open commands, oldest first.")
