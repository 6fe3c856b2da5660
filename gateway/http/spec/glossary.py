"""The words of the OpenAPI document: of the whole, of its tags, and of fields that their models say nothing of.

Most names mean the same wherever they stand; one that means something else is found as ``Schema.field``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

ABOUT: Final = """Registry and factory reset for wearables that speak MQTT.

Every error has the shape of `ErrorAnswer`; its `message` says what to do. Bodies are JSON in UTF-8; unknown fields \
and query parameters are refused, except in heartbeats, which firmware may extend. An integer is written without a \
fraction (`300`, not `300.0`). Times are RFC 3339 in UTC.

`/` serves a page that shows the fleet, `/docs` one to try all of this. HEAD is answered like GET, OPTIONS with the \
methods of a path, another method with 405 `method_not_allowed` and the header `Allow`, a path that is not here with \
404 `not_found` (beneath `/v1` only to callers with a credential), more than 32 KiB of path and headers with 431.

Every answer carries `X-Request-Id`: name it when you report something. Send a POST that has to be repeated safely \
with an `Idempotency-Key`. Wait as long as `Retry-After` says after a 429 or a 503.

Requests are counted for each API key and each device token in windows of a minute. Where no limit is set (setting \
`rate_limit_per_minute` 0), the headers say 2147483647. Requests without a good credential are counted for each \
address (setting `refused_credentials_per_minute`): 401 becomes 429 when there are too many. Those with a good one \
from the same address are served all the same."""
"""What the document says of the API as a whole."""

TAGS: Final[Mapping[str, str]] = {
    "gateway": "Whether the gateway is well, and what it says of itself. Open to anybody, but for `/v1/key`.",
    "devices": "The registry, with an API key of a back end: who has which device, how it is, and its reset.",
    "devices' own": "What a device calls itself, with the device token that its bind answered.",
    "commands": "What devices are told to do, with an API key.",
    "events": "The audit trail: everything that happened in a project, as a list and as a stream.",
    "webhooks": "Where the gateway sends events by itself, and what became of each delivery.",
}

FIELDS: Final[Mapping[str, str]] = {
    "battery_percent": "Charge in percent.",
    "bound_at": "When the device was bound; null while it is unbound.",
    "client_id": "The MQTT client id: the device's id.",
    "code": "For programs: one of the codes that the operation names.",
    "command_id": "The id of the command.",
    "connection": "Whether the device is there: `offline` after three missed heartbeats, or soon after a good-bye.",
    "connection_type": "The links it uses, the one in use first.",
    "created_at": "When it was created.",
    "cursor": "`next_cursor` of the previous page. Omit it for the first page.",
    "data": "The page, newest first.",
    "deleted_at": "When the device was deleted; null if it was not.",
    "delivered_at": "When the device reported that it has the command; null before.",
    "description": "A note for people. The gateway does not interpret it.",
    "details": "For programs: facts that belong to the code, such as the `field` that is wrong.",
    "device_id": "The id of the device.",
    "device_name": "The name that the device gives itself; null until it said one. It never changes `name`.",
    "device_state": "What the device is doing.",
    "device_token": "The device's HTTP bearer, and what the key of its receipts is made of. The broker does not take "
    "it. It is shown this once.",
    "enabled": "Whether events are sent to this webhook. Events that happen while it is disabled are not "
    "kept for later.",
    "end_user_id": "Whose the device is: an id of your own that begins with `eu_`; null while it is unbound.",
    "error": "Why it failed; null otherwise.",
    "event_id": "The event that is delivered; the header `webhook-id` repeats it.",
    "event_type": "The type of that event.",
    "executed_at": "When the device reported that it executed the command; null before.",
    "expires_at": "When the command expires; null if it waits without a limit.",
    "firmware_version": "The version that the device last reported, or that was set over the API.",
    "flags": "Bits: 1 charging, 2 low battery, 4 storage full, 8 WiFi, 16 LTE, 32 sync.",
    "grant_key": "The public key that this device's commands are signed with, to keep on the device.",
    "grant_token": "JWT (EdDSA) by which a device sees that it is the gateway who asks, for what (`par`, a digest of "
    "the params), and that nothing later was asked before (`seq`).",
    "has_more": "Whether there is another page.",
    "idempotency_key": "A key of your choice. The same key and command again return the same command, as long as "
    "the key is kept.",
    "last_attempt_at": "When it was last tried; null before the first try.",
    "last_command": "The last command that the device remembers, with what became of it.",
    "last_heartbeat_at": "When the last heartbeat came, by the gateway's clock.",
    "last_seen_by": "The link over which the device last reported; null if the device did not say.",
    "limit": "Maximum number of items to return.",
    "message": "For people: what is wrong, and what to do.",
    "metadata": "Any JSON object of your own, up to 8 KiB; null until it is set.",
    "model": "One of the models that this gateway is configured for.",
    "mqtt": "Where the broker is, and what the device may publish and subscribe to.",
    "name": "For people; at most 128 UTF-16 units. Blanks around it are trimmed; control, bidirectional and invisible "
    "characters are refused.",
    "next_cursor": "The `cursor` of the next page; null on the last page.",
    "params": "Arguments of the command, by its type: any JSON object up to 16 KiB; integers within 2^53 - 1.",
    "password": "The MQTT password: base64url(HMAC-SHA256(token, `mqtt`)) without padding. It lives and dies with the "
    "token.",
    "pending_recordings": "Recordings that wait to be uploaded.",
    "project_id": "The project that it belongs to.",
    "receipt": "The device's own word: base64url(HMAC-SHA256(SHA-256(token), `command_id|status|binding_generation`)).",
    "recording_state": "What the device last said of its work; null until it said any of it.",
    "response_status": "The HTTP status that the receiver answered; null when there was no answer.",
    "result": "What the device reports about the result; null before.",
    "serial_number": "As it is printed on the device. There is one of each in a project. Characters as in `name`, kept "
    "in Unicode's normal form C; not of the form of an id (`dev_…`).",
    "settings": "Everything that can be set on the device, defaults included.",
    "signal_strength_dbm": "In dBm.",
    "status": "`bound` to an end user, or `unbound`.",
    "storage_total_mb": "In megabytes.",
    "storage_used_mb": "In megabytes.",
    "total_count": "The number of all devices.",
    "type": "The type of the command.",
    "updated_at": "When anything but its health was last changed.",
    "url": "The URL that events are sent to.",
    "username": "The MQTT user: the device's id.",
    "webhook_id": "The id of the webhook.",
    "AckError.code": "An error code of the firmware, such as `stale_generation`.",
    "AckError.message": "For people.",
    "BrokerAccess.error": "Why accounts are not in step now, or what the gateway cannot do about them; else null.",
    "BrokerAccess.managed_by": "`embedded`, `mosquitto`, or `none`: you manage the accounts at the broker.",
    "BoundDevice.id": "`dev_…`; ids sort by time.",
    "BrokerLink.connected": "Whether the gateway has a session with the broker.",
    "BrokerLink.error": "Why the gateway has no session; null when it has one.",
    "BrokerLink.kind": "`embedded`; `mosquitto`, run by the gateway itself; or `external`, run by somebody else.",
    "BrokerLink.mqtt_version": "The MQTT version of the session; null without a session.",
    "BulkCancelOutcome.error": "Why nothing was done; null when the reset was cancelled.",
    "BulkCancelOutcome.id": "The device, as it was named in the request.",
    "BulkCancelOutcomes.data": "One for each device, in the order of the request.",
    "BulkError.code": "As a single reset of this device would have answered.",
    "BulkOutcome.error": "Why nothing was done; null where it was.",
    "BulkOutcome.id": "The device, as it was named in the request.",
    "BulkOutcomes.data": "One for each device, in the order of the request.",
    "Command.binding_generation": "The generation of the binding that it is meant for; a device of another refuses it.",
    "Command.id": "`cmd_…`; ids sort by time.",
    "Command.status": "What the device has reported about the command, never what was sent.",
    "CommandAck.error": "With `failed`: why.",
    "CommandAck.result": "Any JSON object up to 16 KiB. Of a reset: `wiped` and `kept`, two lists.",
    "CommandAck.command_id": "Optional: the path names the command.",
    "CommandAck.status": "`delivered` as soon as the device has it, then `executed` or `failed`.",
    "CommandError.code": "An error code of the firmware.",
    "CommandError.message": "The error text of the firmware.",
    "CommandPayload.binding_generation": "The device obeys if it holds a token of this generation.",
    "CommandPayload.id": "`cmd_…`, for the acknowledgement.",
    "CreatedWebhook.id": "`wh_…`; ids sort by time.",
    "Delivery.created_at": "When the delivery was created.",
    "Delivery.id": "`dlv_…`; ids sort by time.",
    "Delivery.status": "`pending` until a try succeeds (`delivered`) or the gateway gives up (`failed`).",
    "Device.id": "`dev_…`; ids sort by time.",
    "DeviceHealth.binding_generation": "Rises by one at each bind, unbind and reset.",
    "DeviceStats.never_seen_count": "Devices that never reported. They do not count as offline.",
    "DeviceStats.offline_count": "Devices that reported at least once and are offline now.",
    "DeviceStats.online_count": "Devices that are online now.",
    "DeviceStats.project_id": "The project of the API key.",
    "DeviceStats.storage_full_count": "Devices whose last heartbeat reported a full storage.",
    "ErrorAnswer.error": "The error.",
    "Event.id": "`evt_…`; ids sort by time.",
    "Event.type": "What happened, such as `reset.completed`.",
    "Health.billing": "Always `disabled`.",
    "Health.database": "Whether the registry can be read.",
    "Health.status": "`unhealthy` when the registry cannot be read.",
    "Heartbeat.firmware_version": "Replaces the one that the registry has.",
    "HeartbeatAnswer.commands": "The open commands. Only for a device token, and only when there are some.",
    "HeartbeatAnswer.status": "Always `ok`: the heartbeat was stored.",
    "Jwk.alg": "The signature algorithm.",
    "Jwk.crv": "The elliptic curve.",
    "Jwk.kid": "The id of the key. The header of a grant names it.",
    "Jwk.kty": "The key type (RFC 8037).",
    "Jwk.use": "The use of the key: signatures.",
    "Jwk.x": "The public key, base64url.",
    "JwkSet.keys": "The public keys, the one in use first.",
    "KeyFacts.id": "`key_…`.",
    "KeyFacts.project_id": "The only project that the key opens.",
    "KeyFacts.project_name": "For people.",
    "LastCommand.receipt": "Made when the command was executed, and kept since.",
    "LastCommand.status": "The outcome of the command.",
    "MqttAccess.host": "Host name of the broker.",
    "MqttAccess.port": "TCP port of the broker.",
    "MqttAccess.tls": "Whether the broker speaks TLS on this port.",
    "MqttAccess.topics": "The full names of the topics that the device may use.",
    "MqttTopics.errors": "To subscribe: messages that were refused, and why.",
    "MqttTopics.heartbeat": "To publish, QoS 1, not retained.",
    "MqttTopics.status": "To publish, QoS 1, retained; the last will belongs here too.",
    "OutboxDepth.depth": "The number of changes that wait.",
    "ListenerCertificate.error": "Why the certificate is not valid, or why its successor was not loaded; otherwise "
    "null.",
    "ListenerCertificate.expires_at": "When the certificate expires.",
    "ListenerCertificate.listener": "`http`, or `mqtt`: the embedded broker's.",
    "OutboxDepth.oldest_seconds": "How long the oldest change has waited, in seconds.",
    "PendingCommands.data": "The open commands, oldest first.",
    "Readiness.access": "Accounts and sessions at the broker.",
    "Readiness.broker": "The link to the broker.",
    "Readiness.certificates": "The certificates that listeners present; empty where no listener speaks TLS.",
    "Readiness.outbox": "Changes that have not reached the broker yet.",
    "Readiness.registry": "Whether the registry can be written.",
    "Readiness.ready": "Whether every part is ready.",
    "RefreshedToken.binding_generation": "The generation of the binding, unchanged.",
    "RegistryState.error": "Why the last write failed, and what to do; null when it did not.",
    "RegisterDevice.firmware_version": "The firmware version, if it is known.",
    "UpdateWebhook.description": "Null clears it.",
    "Webhook.id": "`wh_…`; ids sort by time.",
    "WebhookTest.duration_ms": "From the first byte sent to the end of the answer.",
    "WebhookTest.error": "Why the delivery failed; null when it succeeded.",
    "WebhookTest.event": "The event that was sent.",
    "list_commands.status": "Filter by command status.",
    "list_commands.type": "Filter by command type.",
    "list_deliveries.status": "Filter by delivery status.",
    "list_devices.connection": "Filter by connection: `online` or `offline`.",
    "list_devices.end_user_id": "Filter by end user.",
    "list_devices.model": "Filter by model.",
    "list_devices.serial_number": "Return only the device with this serial number.",
    "list_devices.status": "Filter by binding: `bound` or `unbound`.",
    "list_events.device_id": "Filter by device.",
    "list_events.type": "Filter by event type.",
    "stream_events.device_id": "Filter by device.",
    "stream_events.type": "Filter by event type.",
}


_MOMENT: Final = "_at"


def dated(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a field; of a moment, which is text in its model, with the format that tells a client so."""
    if not name.endswith(_MOMENT):
        return schema
    if schema.get("type") == "string":
        return {**schema, "format": "date-time"}
    return {**schema, "anyOf": [dated(name, each) for each in schema["anyOf"]]} if "anyOf" in schema else schema


def explained(owner: str, name: str, schema: dict[str, Any]) -> dict[str, str]:
    """Return the description of ``name``: its model's own, or that of this table. A test finds missing ones.

    ``owner`` is the schema of a field, the operation of a parameter.
    """
    own = schema.get("description") or FIELDS.get(f"{owner}.{name}") or FIELDS.get(name)
    return {} if own is None else {"description": own}
