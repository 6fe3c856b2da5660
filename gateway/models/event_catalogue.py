"""What each type of event says, and with which facts beside ``device_id`` and ``actor``: for the reference.

``via`` is ``relay`` where an API key handed over what the device had signed; then the key is the actor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from gateway.models.events import EventType


class EventDescription(NamedTuple):
    """One sentence, and the names of the facts in ``data``."""

    says: str
    facts: tuple[str, ...] = ()


_SUPPRESSED: Final = "suppressed"
"""How many events of this type the device has caused since the last one that were not written."""
_CERTIFICATE: Final = "certificate_id"
_COMMAND: Final = ("command_id", "type")
_SAID: Final = (*_COMMAND, "via")
_KEY: Final = ("key_id", "name")
_JOB: Final = ("job_id", "name", "counts")
_WEBHOOK: Final = ("webhook_id", "host", "events", "enabled")

EVENT_TYPES: Final[Mapping[EventType, EventDescription]] = {
    EventType.DEVICE_REGISTERED: EventDescription("A device was registered.", ("serial_number", "model")),
    EventType.DEVICE_UPDATED: EventDescription(
        "Something of it was changed: the new values; all `tags`; of `metadata` and `settings` the changed keys alone.",
        ("name", "firmware_version", "metadata", "settings", "tags", _SUPPRESSED),
    ),
    EventType.DEVICE_BOUND: EventDescription(
        "It was bound to an end user; `broker` is there if it has one home broker.",
        ("end_user_id", "binding_generation", "broker"),
    ),
    EventType.DEVICE_UNBOUND: EventDescription(
        "It was unbound; `end_user_id` is whom it was bound to.", ("end_user_id", "binding_generation")
    ),
    EventType.DEVICE_DELETED: EventDescription("It was taken out of the fleet; it was not wiped.", ("serial_number",)),
    EventType.DEVICE_RESTORED: EventDescription("It was brought back, unbound.", ("serial_number",)),
    EventType.DEVICE_MOVED: EventDescription(
        "It got another home broker; `from_broker` is null if all brokers served it.", ("from_broker", "to_broker")
    ),
    EventType.DEVICE_ONLINE: EventDescription("It was heard after it had been offline.", ("last_seen_by", _SUPPRESSED)),
    EventType.DEVICE_OFFLINE: EventDescription("It said good-bye, its last will came, or it was silent for too long."),
    EventType.DEVICE_LOW_BATTERY: EventDescription(
        "Its battery fell below its threshold.", ("battery_percent", _SUPPRESSED)
    ),
    EventType.DEVICE_STORAGE_FULL: EventDescription("Its storage is full.", ("storage_used_mb", _SUPPRESSED)),
    EventType.RESET_REQUESTED: EventDescription(
        "Its factory reset was asked for; `end_user_id` is whom it was bound to. `recordings` is `keep` or `wipe`, "
        "`reason` is there when one was given.",
        ("command_id", "end_user_id", "binding_generation", "recordings", "reason"),
    ),
    EventType.RESET_DELIVERED: EventDescription("The device said that it has the reset.", _SAID),
    EventType.RESET_COMPLETED: EventDescription(
        "The device said, with its receipt, that it is wiped.", (*_SAID, "result", _CERTIFICATE)
    ),
    EventType.RESET_FAILED: EventDescription("The device said that it cannot.", (*_SAID, "error", _CERTIFICATE)),
    EventType.RESET_SUPERSEDED: EventDescription(
        "It was bound anew with `supersede_reset`; the reset is cancelled.", (*_COMMAND, _CERTIFICATE)
    ),
    EventType.COMMAND_CREATED: EventDescription("A command was queued.", _COMMAND),
    EventType.COMMAND_DELIVERED: EventDescription("The device said that it has the command.", _SAID),
    EventType.COMMAND_EXECUTED: EventDescription("The device said that it did it.", (*_SAID, "result")),
    EventType.COMMAND_FAILED: EventDescription("The device said that it cannot.", (*_SAID, "error")),
    EventType.COMMAND_EXPIRED: EventDescription("Its time was over before the device had done it.", _COMMAND),
    EventType.COMMAND_CANCELLED: EventDescription(
        "It was cancelled, or its binding ended; `certificate_id` is there if it is a reset.", (*_COMMAND, _CERTIFICATE)
    ),
    EventType.GRANT_KEY_CHANGED: EventDescription(
        "Its commands are signed with another key from now on: the device said, with its receipt, that it has that "
        "key. `previous` is the key that signed before.",
        ("kid", "previous"),
    ),
    EventType.TOKEN_REFRESHED: EventDescription(
        "The device got another token of the same binding.", ("binding_generation",)
    ),
    EventType.TOKEN_REVOKED: EventDescription(
        "Its tokens, of this generation, open nothing any more; with `replaced` only those that a newer one took the "
        "place of.",
        ("binding_generation", "replaced", "via"),
    ),
    EventType.ACKNOWLEDGEMENT_LATE: EventDescription(
        "The device spoke of a command that was final: `status` is the command's, `acknowledged` what it said. "
        "`certificate_id` is there if it is a reset.",
        (*_SAID, "status", "acknowledged", _CERTIFICATE),
    ),
    EventType.ACKNOWLEDGEMENT_REFUSED: EventDescription(
        "An acknowledgement was refused: a bad receipt, a wrong type, an unknown command.",
        ("code", "field", "via", _SUPPRESSED),
    ),
    EventType.PROJECT_CREATED: EventDescription("A project was created.", ("project_id", "name")),
    EventType.KEY_CREATED: EventDescription("An API key was created.", (*_KEY, "scopes", "expires_at")),
    EventType.KEY_UPDATED: EventDescription("An API key got another end; null: it has none.", (*_KEY, "expires_at")),
    EventType.KEY_EXPIRING: EventDescription(
        "An API key expires within a week, or in the last quarter of a shorter life. Told once for each end.",
        (*_KEY, "expires_at"),
    ),
    EventType.KEY_ROTATED: EventDescription(
        "An API key got a new secret; the one before is good until then.", (*_KEY, "previous_secret_expires_at")
    ),
    EventType.KEY_REVOKED: EventDescription("An API key was revoked.", _KEY),
    EventType.ACCOUNT_CREATED: EventDescription("A broker account was created.", ("account",)),
    EventType.ACCOUNT_ROTATED: EventDescription("A broker account got another password.", ("account",)),
    EventType.ACCOUNT_REVOKED: EventDescription("A broker account was revoked.", ("account",)),
    EventType.BROKER_UPDATED: EventDescription(
        "A broker takes no new devices any more (`draining`), or takes them again.", ("broker_id", "draining")
    ),
    EventType.SIGNING_KEY_ROTATED: EventDescription(
        "New bindings are told a new signing key; `reason` says which restore or epoch did it.",
        ("kid", "retired", "reason"),
    ),
    EventType.SIGNING_KEY_DELIVERY: EventDescription(
        "Bound devices get this signing key from now on (`state` is `started`), or no more of them (`stopped`).",
        ("kid", "state"),
    ),
    EventType.SIGNING_KEY_LEAKED: EventDescription(
        "A signing key is known to others: it announces no key to a device any more.", ("kid",)
    ),
    EventType.WEBHOOK_CREATED: EventDescription(
        "A webhook was created. Events of a webhook go to the project's other webhooks alone.", _WEBHOOK
    ),
    EventType.WEBHOOK_UPDATED: EventDescription(
        "A webhook was changed: `changed` names the fields.", (*_WEBHOOK, "changed")
    ),
    EventType.WEBHOOK_ROTATED: EventDescription(
        "A webhook got a new secret, or its overlap was ended; the secret before signs, too, until then.",
        ("webhook_id", "previous_secret_expires_at"),
    ),
    EventType.WEBHOOK_DELETED: EventDescription("A webhook was deleted.", _WEBHOOK),
    EventType.AUTH_REFUSED: EventDescription(
        "Sign-ins were refused: so many from this address, for these reasons. With `sources`: the rest of an hour. "
        "`key_id` is the API key whose revoked, expired or replaced secret was used.",
        ("channel", "address", "key_id", "count", "reasons", "first_at", "last_at", "sources"),
    ),
    EventType.END_USER_ERASED: EventDescription(
        "The data of an end user was erased: `pseudonym` replaces the id in older events, `counts` says how much of "
        "what was erased. The id is not named.",
        ("pseudonym", "counts"),
    ),
    EventType.SESSION_STARTED: EventDescription(
        "A person signed in through the provider.", ("session_id", "person", "role", "expires_at")
    ),
    EventType.SESSION_ENDED: EventDescription(
        "A person's session ended. `because`: `signed_out`, `signed_out_at_provider`, `replaced` (by another sign-in "
        "in the same browser), `role_gone`, `provider_refused`, `expired`, `revoked` (`gateway sessions revoke`) or "
        "`restored` (a backup was restored).",
        ("session_id", "person", "role", "expires_at", "because"),
    ),
    EventType.JOB_CREATED: EventDescription(
        "A job was created: its targets are fixed. `action` is what it does to each.", (*_JOB, "action")
    ),
    EventType.JOB_STARTED: EventDescription("A job began: at once, or when its time had come.", _JOB),
    EventType.JOB_PAUSED: EventDescription("A job was paused: it queues nothing until it is resumed.", _JOB),
    EventType.JOB_RESUMED: EventDescription("A paused job goes on, at its pace.", _JOB),
    EventType.JOB_COMPLETED: EventDescription("Each target of a job has an outcome.", _JOB),
    EventType.JOB_ABORTED: EventDescription(
        "Too many targets of a job failed, so it queues nothing more; `because` says how many.", (*_JOB, "because")
    ),
    EventType.JOB_CANCELLED: EventDescription(
        "A job was cancelled. It queues nothing more, and takes back what no device has reported as delivered.", _JOB
    ),
}
