"""Operations on devices: register, get, bind, unbind, reset, state, audit trail."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

from gateway.core.command_types import CommandType
from gateway.core.topics import Topics
from gateway.domain import devices
from gateway.errors import InvalidRequestError
from gateway.http.callers import READ, WRITE
from gateway.http.operation import AnyOperation, Operation, RequestContext
from gateway.http.paging import fitting, require_forwards
from gateway.http.responses import ApiResponse
from gateway.models.bindings import BindDevice, BoundDevice, MqttAccess, MqttTopics
from gateway.models.devices import Device, DeviceHealth, RegisterDevice
from gateway.models.events import EventList, ListEvents
from gateway.models.fields import Empty
from gateway.models.resets import ResetDevice
from gateway.store import Ahead, Tx, View, command_sql, device_sql, event_list, event_sql, outbox_sql, reset_sql
from gateway.store.broker_sql import BrokerRecord
from gateway.store.device_sql import DeviceRecord
from gateway.store.event_sql import EventRecord

TAG: Final = "devices"
SYNCED: Final = "X-Broker-Synced"


async def register_device(call: RequestContext, body: RegisterDevice) -> ApiResponse:
    """``POST /v1/devices``."""

    def register(tx: Tx) -> ApiResponse:
        device, new = devices.register(tx, call.project_id, body, call.actor)
        return ApiResponse(device_sql.to_model(device), status=201 if new else 200)

    return await call.work.commit(register)


async def get_device(call: RequestContext, _: Empty) -> ApiResponse:
    """``GET /v1/devices/{device_id}``."""
    return ApiResponse(device_sql.to_model(await call.services.store.read_small(lambda view: find(view, call))))


async def bind_device(call: RequestContext, body: BindDevice) -> ApiResponse:
    """``POST /v1/devices/{device_id}/bind``.

    A finished reset may still be retained on the broker. The device is not bound before that is cleared, or the new
    owner's device could read it. The answer waits, a few seconds at most, until the broker knows the new token.
    """
    until = asyncio.get_running_loop().time() + call.services.options.bind_broker_wait_seconds
    if body.supersede_reset:
        if await call.services.store.read(lambda view: _reset_was_sent(view, call)):
            # The device may have reported the outcome already. If the broker is away, the bind ends in a 503 below.
            await call.services.taken_in(max(0.0, until - asyncio.get_running_loop().time()))
        await call.work.step("supersede", Empty, lambda tx: _supersede(tx, call))
    device_pk, to_clear = await call.work.read(lambda view: _reset_to_clear(view, call))
    if to_clear:
        await wait_until_synced(call, device_pk, until)
    answer = await call.work.commit(
        lambda tx: ApiResponse(
            _bound(call, devices.bind(tx, call.project_id, call.device_id, body.end_user_id, call.actor))
        )
    )
    synced = await wait_until_synced(call, device_pk, until)
    return answer if synced else replace(answer, headers={SYNCED: "false"})


def _reset_was_sent(view: View, call: RequestContext) -> bool:
    command = command_sql.open_of_type(view, find(view, call).pk, CommandType.FACTORY_RESET)
    return command is not None and command.sent_at is not None


def _supersede(tx: Tx, call: RequestContext) -> Empty:
    devices.supersede_reset(tx, call.project_id, call.device_id, call.actor)
    return Empty()


def _reset_to_clear(view: View, call: RequestContext) -> tuple[int, bool]:
    pk: int = find(view, call).pk
    is_open = command_sql.open_of_type(view, pk, CommandType.FACTORY_RESET) is not None  # then bind refuses anyhow
    return pk, not is_open and outbox_sql.has(view, outbox_sql.COMMAND, pk, CommandType.FACTORY_RESET)


async def wait_until_synced(call: RequestContext, device_pk: int, until: float) -> bool:
    """Wait until the broker is in step with this device; return False when ``until`` (the loop's time) came first."""
    return await call.services.synced(device_pk, max(0.0, until - asyncio.get_running_loop().time()))


def _bound(call: RequestContext, binding: devices.NewBinding) -> BoundDevice:
    device_id = binding.device.id
    host, port, tls = device_address(call, binding.home)
    return BoundDevice(
        **device_sql.fields(binding.device),
        device_token=binding.device_token,
        mqtt=MqttAccess(
            host=host,
            port=port,
            tls=tls,
            username=device_id,
            password=binding.mqtt_password,
            client_id=device_id,
            topics=_topics(call.services.topics, device_id),
        ),
        grant_key=binding.grant_key,
    )


def device_address(call: RequestContext, home: BrokerRecord | None) -> tuple[str, int, bool]:
    """Return host, port and TLS of the broker for a device: of its home, or of the one beside this gateway."""
    if home is None or home.host is None or home.port is None:
        return call.services.broker_address()
    return home.host, home.port, bool(home.tls)


def _topics(topics: Topics, device_id: str) -> MqttTopics:
    return MqttTopics(
        heartbeat=topics.heartbeat(device_id),
        status=topics.status(device_id),
        commands={each: topics.command(device_id, each) for each in CommandType},
        errors=topics.errors(device_id),
    )


async def unbind_device(call: RequestContext, _: Empty) -> ApiResponse:
    """``POST /v1/devices/{device_id}/unbind``."""
    return await call.work.commit(
        lambda tx: ApiResponse(device_sql.to_model(devices.unbind(tx, call.project_id, call.device_id, call.actor)))
    )


async def reset_device(call: RequestContext, body: ResetDevice) -> ApiResponse:
    """``POST /v1/devices/{device_id}/reset``: one transaction, then the answer; it never waits for the broker."""

    def reset(tx: Tx) -> ApiResponse:
        return ApiResponse(device_sql.to_model(devices.reset(tx, call.project_id, call.device_id, call.actor, body)))

    reads = [lambda view: reset_sql.target(view, call.project_id, call.device_id)]
    return await call.work.commit(reset, Ahead(reads, call.device_id))


async def get_state(call: RequestContext, _: Empty) -> ApiResponse:
    """``GET /v1/devices/{device_id}/state``."""
    device = await call.services.store.read_small(lambda view: find(view, call))
    known = {**device_sql.fields(device), "device_id": device.id, "last_seen_by": device.last_seen_by}
    return ApiResponse(DeviceHealth(**{name: known[name] for name in DeviceHealth.model_fields}))


async def list_device_events(call: RequestContext, query: ListEvents) -> ApiResponse:
    """``GET /v1/devices/{device_id}/events``."""
    require_forwards(query.since, query.until, "event")
    events = await call.work.read(lambda view: _events(view, call, query))
    page, more = fitting(events, query.page_size, event_sql.to_model)
    return ApiResponse(EventList(data=page, has_more=more, next_cursor=page[-1].id if more else None))


def _events(view: View, call: RequestContext, query: ListEvents) -> list[EventRecord]:
    device = find(view, call)
    if query.cursor is not None and event_list.seq_at(view, device.pk, query.cursor) is None:
        raise bad_cursor()
    return event_list.page(view, device.pk, query)


def bad_cursor() -> InvalidRequestError:
    """Return the error for an invalid cursor."""
    return InvalidRequestError(
        "cursor: is not one of this list. Take it from 'next_cursor' of the page before.", details={"field": "cursor"}
    )


def find(view: View, call: RequestContext) -> DeviceRecord:
    """Return the device that the path names.

    Raises:
        NotFoundError: this caller has no such device.
    """
    return devices.require(view, call.project_id, call.device_id)


OPERATIONS: Final[tuple[AnyOperation, ...]] = (
    Operation(
        method="POST",
        path="/v1/devices",
        summary="Register a device",
        description="Registers a device by its serial number. A serial number that this project knows already gets the "
        "device that has it, with status 200; nothing of it is changed then.",
        tag=TAG,
        access=WRITE,
        takes=RegisterDevice,
        handler=register_device,
        answers={201: Device, 200: Device},
        conflicts=("resource_already_exists",),
    ),
    Operation(
        method="GET",
        path="/v1/devices/{device_id}",
        summary="Get a device",
        description="The device as the registry has it.",
        tag=TAG,
        access=READ,
        takes=Empty,
        handler=get_device,
        answers={200: Device},
    ),
    Operation(
        method="POST",
        path="/v1/devices/{device_id}/bind",
        summary="Bind a device to an end user",
        description="Mints the device's token and MQTT password, which are shown this once: bring them to the device "
        "together with the rest of `mqtt` and `grant_key`. While a factory reset is open the answer is 409 "
        "`reset_pending`. With `supersede_reset` that reset is cancelled first, unless the device has executed it "
        "meanwhile. Its token is revoked and its message is cleared from the broker before this is answered. If the "
        "broker cannot be reached for that, the answer is 503 and nothing was bound.",
        tag=TAG,
        access=WRITE,
        takes=BindDevice,
        handler=bind_device,
        answers={200: BoundDevice},
        conflicts=("device_already_bound", "reset_pending"),
        headers={
            SYNCED: "`false` when the broker did not know the new token yet when this was answered, or when nobody has "
            "let the gateway tell it (`/ready` says so): the device is bound, and its connects are refused until the "
            "broker has caught up. Absent otherwise."
        },
    ),
    Operation(
        method="POST",
        path="/v1/devices/{device_id}/unbind",
        summary="Unbind a device",
        description="Ends the binding and revokes the token without wiping the device. An unbound device stays "
        "as it is.",
        tag=TAG,
        access=WRITE,
        takes=Empty,
        handler=unbind_device,
        answers={200: Device},
    ),
    Operation(
        method="POST",
        path="/v1/devices/{device_id}/reset",
        summary="Reset a device to factory settings",
        description="Unbinds the device at once, leaves its token good for the reset alone, and queues a "
        "`factory_reset` that never expires. What is answered is committed; the device gets it as soon as it can be "
        "reached, over WiFi or cellular: a relay over Bluetooth brings none. A cancel later restores nothing: the "
        "device stays unbound, and has to be bound again. A reset while one is open is the same reset; one that asks "
        "for something else to be done with the recordings gets 409 `reset_pending`. GET the device's commands to see "
        "how far it is.",
        tag=TAG,
        access=WRITE,
        takes=ResetDevice,
        handler=reset_device,
        answers={200: Device},
        conflicts=("reset_pending",),
    ),
    Operation(
        method="GET",
        path="/v1/devices/{device_id}/state",
        summary="Get the state of a device",
        description="The newest that the device said of itself, over which link, and whether it is there.",
        tag=TAG,
        access=READ,
        takes=Empty,
        handler=get_state,
        answers={200: DeviceHealth},
    ),
    Operation(
        method="GET",
        path="/v1/devices/{device_id}/events",
        summary="List the events of a device",
        description="The audit trail, newest first. The page after this one starts at `next_cursor`.",
        tag=TAG,
        access=READ,
        takes=ListEvents,
        handler=list_device_events,
        answers={200: EventList},
    ),
)
