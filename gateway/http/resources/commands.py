"""Operations on commands with an API key: create, list, get, cancel."""

from __future__ import annotations

from functools import partial
from typing import Final

from gateway.core import ids
from gateway.domain import commands
from gateway.errors import BacklogError, NotFoundError
from gateway.http.callers import READ, WRITE
from gateway.http.operation import AnyOperation, Operation, RequestContext
from gateway.http.paging import fitting
from gateway.http.resources.devices import bad_cursor, find
from gateway.http.responses import ApiResponse
from gateway.models.commands import Command, CommandList, CreateCommand, ListCommands
from gateway.models.fields import Empty
from gateway.store import Tx, View, command_sql
from gateway.store.command_sql import CommandRecord

TAG: Final = "commands"


async def create_command(call: RequestContext, body: CreateCommand) -> ApiResponse:
    """``POST /v1/devices/{device_id}/commands``."""

    def create(tx: Tx) -> ApiResponse:
        command = commands.create(tx, find(tx, call), body, call.actor)
        return ApiResponse(command_sql.to_model(command, call.device_id), status=201)

    return await call.work.commit(create)


async def list_commands(call: RequestContext, query: ListCommands) -> ApiResponse:
    """``GET /v1/devices/{device_id}/commands``."""
    if query.cursor is not None and not ids.is_id(ids.COMMAND, query.cursor):
        raise bad_cursor()
    rows = await call.work.read(lambda view: command_sql.page(view, find(view, call).pk, query))
    page, more = fitting(rows, query.limit, lambda row: command_sql.to_model(row, call.device_id))
    return ApiResponse(CommandList(data=page, has_more=more, next_cursor=page[-1].id if more else None))


async def get_command(call: RequestContext, _: Empty) -> ApiResponse:
    """``GET /v1/devices/{device_id}/commands/{command_id}``."""
    return ApiResponse(command_sql.to_model(await call.work.read(lambda view: _require(view, call)), call.device_id))


def _require(view: View, call: RequestContext) -> CommandRecord:
    command = command_sql.find(view, find(view, call).pk, call.request.path["command_id"])
    if command is None:
        raise NotFoundError("This device has no such command. GET the device's commands to see those it has.")
    return command


async def cancel_command(call: RequestContext, _: Empty) -> ApiResponse:
    """``POST /v1/devices/{device_id}/commands/{command_id}/cancel``."""

    def cancel(tx: Tx, *, taken_in: bool) -> ApiResponse:
        command = commands.cancel(tx, find(tx, call), call.request.path["command_id"], call.actor, taken_in=taken_in)
        return ApiResponse(command_sql.to_model(command, call.device_id))

    try:
        return await call.work.commit(partial(cancel, taken_in=False))
    except BacklogError:
        if not await call.services.taken_in(call.services.options.cancel_broker_wait_seconds):
            raise
    return await call.work.commit(partial(cancel, taken_in=True))


async def delete_command(call: RequestContext, body: Empty) -> ApiResponse:
    """``DELETE /v1/devices/{device_id}/commands/{command_id}``: the same as cancel."""
    return await cancel_command(call, body)


OPERATIONS: Final[tuple[AnyOperation, ...]] = (
    Operation(
        method="POST",
        path="/v1/devices/{device_id}/commands",
        summary="Queue a command",
        description="Signs a command for a bound device and keeps it for the device until it is final or expires. At "
        "most one command of a type is open at a time. A factory reset is asked for at `/reset`, since it unbinds "
        "the device too.",
        tag=TAG,
        access=WRITE,
        takes=CreateCommand,
        handler=create_command,
        answers={201: Command},
        conflicts=("command_pending", "reset_pending", "device_not_bound", "reset_not_a_command", "reserved_command"),
    ),
    Operation(
        method="GET",
        path="/v1/devices/{device_id}/commands",
        summary="List the commands of a device",
        description="Newest first. The page after this one starts at `next_cursor`.",
        tag=TAG,
        access=READ,
        takes=ListCommands,
        handler=list_commands,
        answers={200: CommandList},
    ),
    Operation(
        method="GET",
        path="/v1/devices/{device_id}/commands/{command_id}",
        summary="Get a command",
        description="How far a command is: its status says what the device has said, never what was sent.",
        tag=TAG,
        access=READ,
        takes=Empty,
        handler=get_command,
        answers={200: Command},
    ),
    Operation(
        method="POST",
        path="/v1/devices/{device_id}/commands/{command_id}/cancel",
        summary="Cancel a command",
        description="A command that is open becomes `cancelled`; cancelled again it stays so. A factory reset can be "
        "cancelled until the device has said `delivered`; its token is revoked then, and the device has to be bound "
        "again. What was published may have been obeyed already: then the gateway first takes in what the broker holds "
        "from before the request, for `cancel_broker_wait_seconds` (5) at most. 503 when that takes longer or the "
        "broker is away: nothing was cancelled.",
        tag=TAG,
        access=WRITE,
        takes=Empty,
        handler=cancel_command,
        answers={200: Command},
        conflicts=("command_final", "reset_pending"),
    ),
    Operation(
        method="DELETE",
        path="/v1/devices/{device_id}/commands/{command_id}",
        summary="Cancel a command, as a DELETE",
        description="The same as `POST …/cancel`, by the same rules: the command becomes `cancelled` and is kept. What "
        "is final stays as it is, with a 409.",
        tag=TAG,
        access=WRITE,
        takes=Empty,
        handler=delete_command,
        answers={200: Command},
        conflicts=("command_final", "reset_pending"),
    ),
)
