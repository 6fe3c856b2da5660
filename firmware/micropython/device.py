"""The firmware's state machine, without I/O: `Device.handle(event, now)` returns actions for `runtime`, in order.

The power may be cut between any two actions. A new `Device` must then reach the same end from the flash alone.
Events and actions are tuples whose first member is the kind.

Events:

- `power_on` wiped kept: the areas of the flash.
- `provisioned` binding networks: made by `wire.binding_from_answer`.
- `link_up` connection transport (`wifi 4g ble`, `mqtt http`); `link_down` reason; `link_refused` refusals reason.
- `heartbeat_due`; `command` type payload; `errors` payload; `local_reset` (the button was held).
- `token_refreshed` token; `refresh_failed` reason revoked.
- `published` action; `publish_failed` action reason.

Actions:

- `tell` name details: a fact for observers.
- `publish` kind payload command_id command_type status; kind is `heartbeat`, `status` or `ack`.
- `write` area name value; `erase` area name.
- `open_link` connection binding; `refresh_token` binding.
- `reboot`: discard the RAM, then `power_on`.
"""

import grant
import wire
from product import Product
from records import Journal, LastWipe, Sequences, acknowledge

TOKEN, PAIRING, WIFI = "device_token", "pairing", "wifi_networks"
WIPED = (TOKEN, PAIRING, WIFI)  # the token first: a half-wiped device without its token cannot authenticate
FIRMWARE, APN, IN_PROGRESS = "firmware_version", "cellular_apn", "reset_in_progress"
RESET, NEW_KEY = "factory_reset", "set_grant_key"
RESET_RESULT = {"wiped": list(WIPED), "kept": ["serial_number", APN, "last_command_id"]}


class Device:
    """RAM of one device. `state` is rebooting, unprovisioned, provisioned, online or resetting."""

    def __init__(self, product=None):
        self.state = "rebooting"
        self.binding = None
        self.product = product or Product()
        self._last_heartbeat_at = None
        self._load({}, {})

    def _load(self, wiped, kept):
        pairing, token = wiped.get(PAIRING), wiped.get(TOKEN)
        # Without one of the two, as after a power cut during provisioning, there is no binding.
        self.binding = None if pairing is None or token is None else _with_token(pairing, token)
        self._kept = kept
        self._networks = list(wiped.get(WIFI) or [])
        self._journal = Journal(kept)
        self._last_wipe = LastWipe(kept)
        self._sequences = Sequences(self.binding and self.binding["binding_generation"], kept)
        self._accepted_reset = self._connection = self._transport = None
        self._is_refused = False

    def handle(self, event, now):
        """Process one event at `now`, in milliseconds since 1970, or None while the clock is not set.

        A device that reboots ignores all but `power_on`.
        """
        kind, details = event[0], event[1:]
        if kind == "power_on":
            return self._power_on(*details)
        if self.state == "rebooting":
            return []
        if kind in ("link_up", "heartbeat_due", "command"):
            return getattr(self, "_" + kind)(now, *details)
        return getattr(self, "_" + kind)(*details)

    # --- power and provisioning ---------------------------------------------------------------------------------------

    def _power_on(self, wiped, kept):
        self._load(wiped, kept)
        progress = kept.get(IN_PROGRESS)
        if progress is not None:
            return self._resume_reset(progress)
        if self.binding is None:
            return self._unpaired()
        self.state = "provisioned"
        return [("tell", "powered_on", {"pairing": "paired"}), self._open_link()]

    def _unpaired(self):
        self.state = "unprovisioned"
        self.binding, self._networks = None, []
        return [("tell", "powered_on", {"pairing": "unpaired"})]

    def _open_link(self):
        connection = "wifi" if self._networks else "4g" if self._kept.get(APN) else "ble"
        return ("open_link", connection, self.binding)

    def _provisioned(self, binding, networks):
        if self.state != "unprovisioned":
            return [("tell", "provisioning_refused", {"reason": "the device is paired; reset it first"})]
        self.state, self.binding, self._networks = "provisioned", binding, list(networks)
        generation = binding["binding_generation"]
        self._sequences = Sequences(generation, {})
        return [
            ("write", "wiped", WIFI, self._networks),
            ("write", "wiped", PAIRING, _without_token(binding)),
            ("write", "wiped", TOKEN, binding[TOKEN]),  # last: a binding with a token is complete
            ("tell", "provisioned", {"device_id": binding["device_id"], "generation": generation}),
            self._open_link(),
        ]

    # --- link and heartbeats ------------------------------------------------------------------------------------------

    def _link_up(self, now, connection, transport):
        if self.binding is None or self.state == "resetting":
            return []
        self.state, self._connection, self._transport, self._is_refused = "online", connection, transport, False
        self._last_wipe.heartbeats = 0
        birth = [("publish", "status", wire.ONLINE, None, None, None)] if transport == "mqtt" else []
        told = ("tell", "online", {"connection": connection, "transport": transport})
        return [told] + birth + self._heartbeat_due(now)

    def _link_down(self, reason):
        self._connection = self._transport = self._accepted_reset = None
        if self.state == "online":
            self.state = "provisioned"
        return [("tell", "offline", {"reason": reason})]

    def _link_refused(self, refusals, reason):
        self._is_refused = self.state == "provisioned"
        return [("tell", "refused", {"refusals": refusals, "reason": reason})] + self._ask_for_token()

    def _heartbeat_due(self, now):
        if self.state != "online" or self._transport is None:
            return self._ask_for_token()
        # Equal times would look like a replay of one heartbeat, so each is later than the one before.
        last, sent_at = self._last_heartbeat_at, None
        if now is not None:
            self._last_heartbeat_at = now if last is None else max(now, last + 1)
            sent_at = wire.rfc3339(self._last_heartbeat_at)
        word = self._last_wipe.in_next_heartbeat(self._transport)
        body = self.product.report(self._connection)
        body["firmware_version"] = self._kept.get(FIRMWARE)
        body["sent_at"] = sent_at
        body["last_command"] = word
        return [("publish", "heartbeat", wire.encode(body), word and word["command_id"], None, None)]

    # --- a token that the broker refuses ------------------------------------------------------------------------------

    def _ask_for_token(self):
        """Request a token over HTTP with each heartbeat that is due, until there is an answer."""
        return [("refresh_token", self.binding)] if self._is_refused and self.binding is not None else []

    def _token_refreshed(self, token):
        if self.binding is None or self.state != "provisioned":
            return []
        self.binding, self._is_refused = _with_token(self.binding, token), False
        told = ("tell", "token_refreshed", {"generation": self.binding["binding_generation"]})
        return [("write", "wiped", TOKEN, token), told, self._open_link()]

    def _refresh_failed(self, reason, revoked):
        self._is_refused = self._is_refused and not revoked
        return [("tell", "token_not_refreshed", {"reason": reason})]

    # --- commands -----------------------------------------------------------------------------------------------------

    def _command(self, now, command_type, payload):
        if not payload:
            return self._cleared(command_type)
        try:
            command = wire.parse_command(payload)
        except (ValueError, RuntimeError, MemoryError) as error:  # the last two: the stack or the heap of a small board
            return [("tell", "command_ignored", {"type": command_type, "reason": str(error)})]
        known = self._journal.find(command["id"], command_type)
        if known is not None:
            told = ("tell", "already_done", {"command_id": known["command_id"], "status": known["status"]})
            return [told, acknowledge(known)]
        if self.binding is None or self.state == "resetting":
            reason = "the device is unpaired or being wiped"
            return [("tell", "command_ignored", {"type": command_type, "reason": reason})]
        return self._new_command(command, command_type, now)

    def _cleared(self, command_type):
        """Handle an empty retained message: no command of this type is open, so drop a reset that has not begun."""
        if command_type != RESET or self._accepted_reset is None:
            return []
        dropped, self._accepted_reset = self._accepted_reset, None
        return [("tell", "reset_withdrawn", {"command_id": dropped["id"]})]

    def _new_command(self, command, topic_type, now):
        received = (
            "tell",
            "command_received",
            {"command_id": command["id"], "type": topic_type, "generation": command["binding_generation"]},
        )
        try:
            seq, key = grant.check(command, topic_type, self.binding, self._sequences, now)
        except grant.RefusalError as refusal:
            return [received] + self._refuse(command, topic_type, refusal)
        except MemoryError:  # it has changed nothing yet, and arrives again with the next link
            return [received, ("tell", "command_ignored", {"type": topic_type, "reason": "no memory"})]
        settled = self._settle_key(key) + self._sequences.take(topic_type, seq, command["id"])
        return [received] + settled + self._obey(command)

    def _refuse(self, command, topic_type, refusal):
        outcome = self._outcome(command, "failed")
        outcome["type"] = topic_type
        outcome["result"] = refusal.result
        outcome["error"] = {"code": refusal.code, "message": refusal.message}
        # Store it only if the gateway signed it. A forgery could otherwise use up an id before the real command
        # arrives.
        keep = [self._journal.remember(outcome)] if refusal.proven else []
        details = {"command_id": command["id"], "type": topic_type, "code": refusal.code}
        return [("tell", "command_refused", details)] + keep + [acknowledge(outcome)]

    def _obey(self, command):
        delivered = acknowledge(self._outcome(command, "delivered"))
        if command["type"] == RESET:
            self._accepted_reset = command  # the reset begins when the delivery of this message is confirmed
            return [delivered]
        if command["type"] == NEW_KEY:
            return [delivered] + self._take_key(command)
        outcome = self._outcome(command, "executed")
        outcome["result"] = self.product.execute(command["type"], command["params"])
        done = [delivered, self._journal.remember(outcome), acknowledge(outcome)]
        if command["type"] != "reboot":
            return done
        self.state = "rebooting"
        return done + [("reboot",)]

    def _outcome(self, command, status):
        word = wire.receipt(self.binding[TOKEN], command["id"], status, command["binding_generation"])
        names = {"command_id": command["id"], "type": command["type"], "status": status, "receipt": word}
        names["result"] = names["error"] = None
        return names

    # --- a new grant key ----------------------------------------------------------------------------------------------

    def _settle_key(self, key):
        """Drop the old key when the new one has signed: the gateway has it. Both are in one value of the flash."""
        if key is self.binding["grant_key"]:
            return []
        dropped = self.binding["grant_key"].get("kid")
        return [self._write_keys(key, None), ("tell", "grant_key_dropped", {"kid": dropped})]

    def _take_key(self, command):
        """Write the new key beside the old one, which has signed it. A key that the device has changes nothing."""
        try:
            key = grant.new_key(command["params"])
        except grant.RefusalError as refusal:
            return self._refuse(command, command["type"], refusal)
        known = [each["x"] for each in grant.keys_of(self.binding)]
        written = []
        if key["x"] not in known:
            written = [
                self._write_keys(self.binding["grant_key"], key),
                ("tell", "grant_key_added", {"kid": key["kid"]}),
            ]
        outcome = self._outcome(command, "executed")
        outcome["result"] = {"grant_kid": grant.keys_of(self.binding)[0]["kid"]}
        return written + [self._journal.remember(outcome), acknowledge(outcome)]

    def _write_keys(self, key, new):
        self.binding = dict(self.binding)
        self.binding["grant_key"], self.binding["next_grant_key"] = key, new
        if new is None:
            del self.binding["next_grant_key"]
        return ("write", "wiped", PAIRING, _without_token(self.binding))

    # --- the reset ----------------------------------------------------------------------------------------------------

    def _published(self, action):
        _, kind, _, command_id, _, status = action
        if kind == "ack" and status == "delivered":
            return self._begin_reset(command_id)
        if not self._last_wipe.is_about(command_id):
            return []
        # Only over HTTP the confirmation comes from the gateway.
        forgotten = self._last_wipe.forget() if self._transport not in (None, "mqtt") else []
        return forgotten + self._end_reset()

    def _publish_failed(self, action, reason):
        _, kind, _, command_id, _, _ = action
        if kind == "ack" and self.state == "resetting" and self._last_wipe.is_about(command_id):
            return [("tell", "acknowledgement_lost", {"command_id": command_id})] + self._end_reset()
        if self._accepted_reset is None or command_id != self._accepted_reset["id"]:
            return []
        self._accepted_reset = None  # the retained command arrives again with the next link
        return [("tell", "reset_postponed", {"command_id": command_id, "reason": reason})]

    def _begin_reset(self, command_id):
        command = self._accepted_reset
        if command is None or self.binding is None or command_id != command["id"]:
            return []
        self._accepted_reset = None
        self.state = "resetting"
        outcome = self._outcome(command, "executed")
        outcome["result"] = RESET_RESULT
        # The receipt needs the token, so it is made and stored before the token is erased.
        return [("write", "kept", IN_PROGRESS, outcome)] + self._wipe(outcome) + [acknowledge(outcome)]

    def _wipe(self, outcome):
        """Wipe, and store the outcome for the next heartbeats. A repetition is safe."""
        erased = [("erase", "wiped", each) for each in WIPED]
        stored = [self._journal.remember(outcome), self._last_wipe.keep(outcome)] if outcome else []
        return erased + stored + [("erase", "kept", IN_PROGRESS)]

    def _end_reset(self):
        if self.state != "resetting":
            return []
        self.state = "rebooting"
        return [("reboot",)]

    def _resume_reset(self, outcome):
        told = ("tell", "wipe_resumed", {"command_id": outcome.get("command_id")})
        return [told] + self._wipe(outcome) + self._unpaired()

    def _local_reset(self):
        """Wipe because the button was held. There is no command, so there is nothing to acknowledge."""
        if self.state == "resetting":
            return []
        self.state = "rebooting"
        begun = [("tell", "local_reset", {}), ("write", "kept", IN_PROGRESS, {})]
        return begun + self._wipe({}) + [("reboot",)]

    def _errors(self, payload):
        """Process a refusal of the gateway. If it refuses the outcome of the last wipe, it never accepts it."""
        told = [("tell", "message_refused", {"answer": payload})]
        try:
            field = wire.read_json(payload)["field"]
        except (ValueError, KeyError, TypeError):
            return told
        return told + (self._last_wipe.forget() if str(field).startswith("last_command.") else [])


def _with_token(pairing, token):
    binding = dict(pairing)
    binding[TOKEN] = token
    return binding


def _without_token(binding):
    return {name: value for name, value in binding.items() if name != TOKEN}
