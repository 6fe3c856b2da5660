"""SQL of devices and of their newest health."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gateway.core import serial_numbers
from gateway.core.clock import to_rfc3339
from gateway.models.device_settings import with_defaults
from gateway.models.devices import Device, RecordingState, RegisterDevice
from gateway.models.states import DeviceState, Radio
from gateway.store import device_search, tag_sql
from gateway.store.key_sql import EPOCH_BASE, meta
from gateway.store.outbox_sql import DISCOVERY, STATE, mark_mirror
from gateway.store.records import DeviceName, columns

if TYPE_CHECKING:
    from collections.abc import Collection

    from gateway.store.transaction import Tx, View


class DeviceRecord(NamedTuple):
    """A device with its newest health; times are milliseconds since the epoch.

    ``metadata`` and ``settings`` are JSON text; ``settings`` holds the differences from the defaults. ``connection`` is
    ``online`` or ``offline``. ``connection_type`` lists links, ``tags`` lists tags, each joined by commas.
    """

    pk: int
    id: str
    project_id: str
    serial_number: str
    model: str
    name: str | None
    firmware_version: str | None
    metadata: str | None
    settings: str
    end_user_id: str | None
    binding_generation: int
    bound_at: int | None
    created_at: int
    updated_at: int
    deleted_at: int | None
    tags: str
    battery_percent: int | float | None
    storage_used_mb: int | float | None
    storage_total_mb: int | float | None
    signal_strength_dbm: int | float | None
    last_heartbeat_at: int | None
    recording_state: str | None
    pending_recordings: int | None
    flags: int | None
    connection_type: str | None
    device_name: str | None
    last_seen_by: str | None
    connection: str


_OF_HEALTH: Final = DeviceRecord._fields[DeviceRecord._fields.index("battery_percent") : -1]
COLUMNS: Final = columns(
    DeviceRecord,
    "d",
    **{name: f"h.{name}" for name in _OF_HEALTH},
    connection="coalesce(h.connection, 'offline')",
)
_LOCKED: Final = """SELECT count(*) FROM
    (SELECT pk FROM devices WHERE id IN ({}) ORDER BY pk FOR NO KEY UPDATE) AS locked"""
FROM: Final = "FROM devices d LEFT JOIN health h ON h.device_pk = d.pk"


def find(view: View, project_id: str, device_id: str) -> DeviceRecord | None:
    """Return a device of this project that is not deleted."""
    return view.record(
        DeviceRecord,
        f"SELECT {COLUMNS} {FROM} WHERE d.id = ? AND d.project_id = ? AND d.deleted_at IS NULL",
        device_id,
        project_id,
    )


def by_pk(view: View, pk: int) -> DeviceRecord:
    """Return a device by its row number."""
    device = view.record(DeviceRecord, f"SELECT {COLUMNS} {FROM} WHERE d.pk = ?", pk)
    if device is None:
        raise LookupError(f"no device with pk {pk}")
    return device


def by_pks(view: View, pks: Collection[int]) -> dict[int, DeviceRecord]:
    """Return devices by their row numbers, deleted or not. Numbers of none are left out."""
    found = view.records(
        DeviceRecord,
        f"SELECT {COLUMNS} {FROM} WHERE d.pk IN ({view.dialect.numbers})",
        json.dumps(list(pks)),
    )
    return {device.pk: device for device in found}


def any_by_ids(view: View, device_ids: Collection[str]) -> list[DeviceRecord]:
    """Return devices of any project by their ids, deleted or not. Ids of none are left out."""
    return view.records(
        DeviceRecord,
        f"SELECT {COLUMNS} {FROM} WHERE d.id IN ({view.dialect.names})",
        json.dumps(list(device_ids)),
    )


def by_id(view: View, device_id: str) -> DeviceRecord | None:
    """Return a device of any project that is not deleted: for the broker, where the device has shown its credential."""
    return view.record(DeviceRecord, f"SELECT {COLUMNS} {FROM} WHERE d.id = ? AND d.deleted_at IS NULL", device_id)


def any_by_id(view: View, device_id: str) -> DeviceRecord | None:
    """Return a device of any project, deleted or not."""
    return view.record(DeviceRecord, f"SELECT {COLUMNS} {FROM} WHERE d.id = ?", device_id)


def lock(tx: Tx, device_ids: Collection[str]) -> None:
    """Lock the rows of these devices for this transaction, after those that hold them have ended (PostgreSQL).

    The rows are locked in one order, so two transactions never wait for each other. The time of the write is that
    after the wait: no later statement is older than what the other transaction has committed.
    """
    tx.value(_LOCKED.format(tx.dialect.names), json.dumps(list(device_ids)))
    tx.now = max(tx.now, tx.context.clock())


def any_of_project(view: View, project_id: str, device_id: str) -> DeviceRecord | None:
    """Return a device of this project, deleted or not."""
    return view.record(
        DeviceRecord, f"SELECT {COLUMNS} {FROM} WHERE d.id = ? AND d.project_id = ?", device_id, project_id
    )


def by_serial(view: View, project_id: str, serial_number: str) -> DeviceRecord | None:
    """Return a device of this project by its serial number, as given or in normal form, deleted or not."""
    statement = f"SELECT {COLUMNS} {FROM} WHERE d.project_id = ? AND d.serial_number = ?"
    found = (view.record(DeviceRecord, statement, project_id, form) for form in serial_numbers.forms(serial_number))
    return next((device for device in found if device is not None), None)


def insert(tx: Tx, device_id: str, project_id: str, body: RegisterDevice, device_model: str) -> int:
    """Insert an unbound device with the epoch's first generation; return its row number."""
    pk: int = tx.value(
        """INSERT INTO devices (id, project_id, serial_number, model, name, firmware_version, metadata,
            binding_generation, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING pk""",
        device_id,
        project_id,
        body.serial_number,
        device_model,
        body.name,
        body.firmware_version,
        None if body.metadata is None else json.dumps(body.metadata, ensure_ascii=False),
        int(meta(tx, EPOCH_BASE) or 0),
        tx.now,
        tx.now,
    )
    device_search.add(tx, pk)
    mark_mirror(tx, pk, STATE, DISCOVERY)
    return pk


def set_binding(tx: Tx, device: DeviceRecord, end_user_id: str | None) -> DeviceRecord:
    """Bind (or, with ``None``, unbind) and raise the generation; return the device as it is now.

    ``device`` was read in this transaction: no other write comes between.
    """
    changed = device._replace(
        end_user_id=end_user_id,
        bound_at=None if end_user_id is None else tx.now,
        updated_at=tx.now,
        binding_generation=device.binding_generation + 1,
    )
    with device_search.changing_end_user(tx, device.pk):
        tx.run(
            "UPDATE devices SET end_user_id = ?, bound_at = ?, updated_at = ?, binding_generation = ? WHERE pk = ?",
            *(changed.end_user_id, changed.bound_at, changed.updated_at, changed.binding_generation, device.pk),
        )
    mark_mirror(tx, device.pk, STATE)
    return changed


def store_properties(
    tx: Tx,
    pk: int,
    *,
    name: str | None,
    firmware_version: str | None,
    metadata: dict[str, Any] | None,
    settings: dict[str, Any],
    tags: tuple[str, str],
) -> None:
    """Store what people may change of a device; ``settings`` holds the differences from the defaults.

    ``tags`` are those before and after, as the row holds them.
    """
    with device_search.changing(tx, pk):
        tx.run(
            """UPDATE devices SET name = ?, firmware_version = ?, metadata = ?, settings = ?, updated_at = ?
                WHERE pk = ?""",
            name,
            firmware_version,
            None if metadata is None else json.dumps(metadata, ensure_ascii=False),
            json.dumps(settings, ensure_ascii=False),
            tx.now,
            pk,
        )
        tag_sql.store(tx, pk, *tags)
    mark_mirror(tx, pk, STATE, DISCOVERY)


def set_deleted(tx: Tx, pk: int, deleted_at: int | None) -> None:
    """Delete (milliseconds since the epoch), or restore with ``None``. The record stays as it is."""
    tx.run("UPDATE devices SET deleted_at = ?, updated_at = ? WHERE pk = ?", deleted_at, tx.now, pk)
    tag_sql.follow_deletion(tx, pk, deleted=deleted_at is not None)
    mark_mirror(tx, pk, STATE, DISCOVERY)


def living(view: View, after: int, limit: int) -> list[DeviceRecord]:
    """Return devices of all projects that are not deleted, by row numbers after ``after``."""
    return view.records(
        DeviceRecord,
        f"SELECT {COLUMNS} {FROM} WHERE d.pk > ? AND d.deleted_at IS NULL ORDER BY d.pk LIMIT ?",
        *(after, limit),
    )


def names_after(view: View, after: int, limit: int, *, deleted: bool = False) -> list[DeviceName]:
    """Return ``pk``, ``id``, ``project_id`` of all or of ``deleted`` devices, by row numbers after ``after``."""
    which = "AND deleted_at IS NOT NULL" if deleted else ""
    statement = f"SELECT pk, id, project_id FROM devices WHERE pk > ? {which} ORDER BY pk LIMIT ?"  # noqa: S608 - constants
    return view.records(DeviceName, statement, after, limit)


def names_of(view: View, device_ids: Collection[str], project_id: str | None) -> list[DeviceName]:
    """Return those of these devices that are not deleted, of one project or of all, by row numbers."""
    return view.records(
        DeviceName,
        f"""SELECT pk, id, project_id FROM devices WHERE id IN ({view.dialect.names}) AND deleted_at IS NULL
            AND project_id = coalesce(CAST(? AS TEXT), project_id) ORDER BY pk""",  # noqa: S608 - a constant
        *(json.dumps(list(device_ids)), project_id),
    )


def deleted_since(view: View, since: int) -> list[int]:
    """Return row numbers of devices that were deleted since then and still are."""
    return [row["pk"] for row in view.all("SELECT pk FROM devices WHERE deleted_at >= ?", since)]


def to_model(device: DeviceRecord) -> Device:
    """Return it as the API shows it."""
    return Device.model_construct(**fields(device))


def fields(device: DeviceRecord) -> dict[str, Any]:
    """Return the contract's fields of a device, in the contract's order."""
    return {
        "id": device.id,
        "project_id": device.project_id,
        "serial_number": device.serial_number,
        "model": device.model,
        "name": device.name,
        "firmware_version": device.firmware_version,
        "status": "unbound" if device.bound_at is None else "bound",
        "end_user_id": device.end_user_id,
        "binding_generation": device.binding_generation,
        "battery_percent": device.battery_percent,
        "storage_used_mb": device.storage_used_mb,
        "storage_total_mb": device.storage_total_mb,
        "signal_strength_dbm": device.signal_strength_dbm,
        "last_heartbeat_at": moment(device.last_heartbeat_at),
        "recording_state": _recording_state(device),
        "device_name": device.device_name,
        "connection": device.connection,
        "tags": tag_sql.split(device.tags),
        "metadata": None if device.metadata is None else json.loads(device.metadata),
        "settings": with_defaults(json.loads(device.settings)),
        "created_at": moment(device.created_at),
        "updated_at": moment(device.updated_at),
        "bound_at": moment(device.bound_at),
        "deleted_at": moment(device.deleted_at),
    }


def _recording_state(device: DeviceRecord) -> RecordingState | None:
    """Return what the device last reported of its work, or None before its first report."""
    state, pending = device.recording_state, device.pending_recordings
    flags, links = device.flags, device.connection_type
    if state is None and pending is None and flags is None and links is None:
        return None
    return RecordingState.model_construct(
        device_state=None if state is None else DeviceState(state),
        pending_recordings=pending,
        flags=flags,
        connection_type=[Radio(link) for link in (links or "").split(",") if link],
    )


def moment(milliseconds: int | None) -> str | None:
    """Return an instant in RFC 3339, or None."""
    return None if milliseconds is None else to_rfc3339(milliseconds)
