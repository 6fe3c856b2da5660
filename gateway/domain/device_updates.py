"""Device updates by people, other than the binding: name, firmware version, metadata, settings, tags."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from gateway.domain.devices import require
from gateway.errors import InvalidRequestError
from gateway.models import device_settings
from gateway.models.fields import MAX_METADATA_BYTES
from gateway.models.tags import MAX_TAGS
from gateway.store import Tx, device_sql, event_sql, tag_sql
from gateway.store.device_sql import DeviceRecord

if TYPE_CHECKING:
    from gateway.models.devices import UpdateDevice

Properties = dict[str, Any]


def update(tx: Tx, project_id: str, device_id: str, change: UpdateDevice, actor: str) -> DeviceRecord:
    """Merge a change into the device. One that changes nothing writes no event and no new ``updated_at``.

    Raises:
        InvalidRequestError: the resulting settings or tags are not valid, or the metadata is too large.
    """
    device = require(tx, project_id, device_id)
    before = _properties(device)
    after = before | _wanted(before, change)
    if _text(after) == _text(before):
        return device
    tags = device.tags, tag_sql.joined(after["tags"])
    device_sql.store_properties(tx, device.pk, **(after | {"tags": tags}))
    event_sql.record(tx, device, "device.updated", actor, **_changes(before, after))
    return device_sql.by_pk(tx, device.pk)


def _properties(device: DeviceRecord) -> Properties:
    return {
        "name": device.name,
        "firmware_version": device.firmware_version,
        "metadata": None if device.metadata is None else json.loads(device.metadata),
        "settings": json.loads(device.settings),
        "tags": tag_sql.split(device.tags),
    }


def _wanted(before: Properties, change: UpdateDevice) -> Properties:
    wanted = {name: getattr(change, name) for name in change.model_fields_set - {"add_tags", "remove_tags"}}
    if wanted.get("metadata") is not None:
        wanted["metadata"] = _merged(before["metadata"], wanted["metadata"])
    if "settings" in wanted:
        wanted["settings"] = device_settings.changed(before["settings"], wanted["settings"])
    if change.add_tags or change.remove_tags:
        wanted["tags"] = _retagged(before["tags"], change)
    return wanted


def _retagged(tags: list[str], change: UpdateDevice) -> list[str]:
    if "tags" in change.model_fields_set:
        raise InvalidRequestError(
            "tags: replaces all tags, so it does not go with 'add_tags' or 'remove_tags'. Send one or the other.",
            details={"field": "tags"},
        )
    both = sorted(set(change.add_tags) & set(change.remove_tags))
    if both:
        raise InvalidRequestError(
            f"remove_tags: '{both[0]}' is in 'add_tags' too. Leave it out of one of them.",
            details={"field": "remove_tags"},
        )
    result = sorted((set(tags) | set(change.add_tags)) - set(change.remove_tags))
    if len(result) > MAX_TAGS:
        raise InvalidRequestError(
            f"add_tags: the device would have {len(result)} tags; {MAX_TAGS} are the limit. Remove some with "
            "'remove_tags', or send 'tags' to replace them.",
            details={"field": "add_tags"},
        )
    return result


def _merged(known: Properties | None, change: Properties) -> Properties | None:
    merged = {key: value for key, value in ((known or {}) | change).items() if value is not None or key not in change}
    if known is None and not merged:
        return None  # null until set
    size = len(json.dumps(merged, ensure_ascii=False).encode())
    if size > MAX_METADATA_BYTES:
        raise InvalidRequestError(
            f"metadata: would have {size} bytes of JSON with what is there already; {MAX_METADATA_BYTES} are the "
            "limit. Remove keys by setting them to null.",
            details={"field": "metadata"},
        )
    return merged


def _changes(before: Properties, after: Properties) -> Properties:
    """Return the new values for the event; of metadata and settings only the keys that changed."""
    facts = {name: after[name] for name in after if _text(after[name]) != _text(before[name])}
    if facts.get("metadata") is not None:
        old, new = before["metadata"] or {}, after["metadata"]
        keys = [key for key in old | new if _text(old.get(key)) != _text(new.get(key))]
        facts["metadata"] = {key: new.get(key) for key in keys}
    if "settings" in facts:
        old, new = (device_settings.with_defaults(each["settings"]) for each in (before, after))
        facts["settings"] = device_settings.difference(old, new)
    return facts


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)  # to Python 1, 1.0 and true are equal
