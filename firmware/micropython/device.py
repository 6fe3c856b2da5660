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
- `open_link` connection binding; `refresh_token` binding; `upload` recording_id generation binding.
- `reboot`: discard the RAM, then `power_on`.
"""

import grant
import wire
from product import RECORDINGS, Product

TOKEN, PAIRING, WIFI = "device_token", "pairing", "wifi_networks"
WIPED = (TOKEN, PAIRING, WIFI)  # the token first: a half-wiped device without its token cannot authenticate
FIRMWARE, APN, IN_PROGRESS = "firmware_version", "cellular_apn", "reset_in_progress"
LAST_COMMANDS, LAST_SEQUENCES, LAST_COMMAND = "last_commands", "last_sequences", "last_command"
RESET, NEW_KEY, KEPT = "factory_reset", "set_grant_key", ("serial_number", APN, "last_command_id")
REMEMBERED = 16  # outcomes of commands


class Device:
    """RAM of one device. `state` is rebooting, unprovisioned, provisioned, online or resetting."""

    def __init__(self):
        self.product = Product()
        self.now = self._last_heartbeat_at = None
        self._load({}, {})
        self.state = "rebooting"

    def _load(self, wiped, kept):
        self.binding = None
        # Without one of the two, as after a power cut during provisioning, there is no binding.
        if PAIRING in wiped and TOKEN in wiped:
            self.binding = dict(wiped[PAIRING])
            self.binding[TOKEN] = wiped[TOKEN]
        self._kept = kept
        self.product.power_on(kept)
        self._networks = wiped.get(WIFI, [])
        self._outcomes = kept.get(LAST_COMMANDS, [])
        self._last_wipe = kept.get(LAST_COMMAND)
        sequences = kept.get(LAST_SEQUENCES, {})
        is_current = self.binding is not None and sequences.get("generation") == self.binding["binding_generation"]
        self._sequences = sequences["last"] if is_current else {}
        self._accepted_reset = self._connection = self._transport = None
        self._is_refused, self._heartbeats = False, 0

    def handle(self, event, now):
        """Process one event at `now`, in milliseconds since 1970, or None while the clock is not set.

        A device that reboots ignores all but `power_on`.
        """
        if self.state == "rebooting" and event[0] != "power_on":
            return []
        self.now = now
        return getattr(self, "_" + event[0])(*event[1:])

    # --- power and provisioning ---------------------------------------------------------------------------------------

    def _power_on(self, wiped, kept):
        self._load(wiped, kept)
        self.state = "unprovisioned" if self.binding is None else "provisioned"
        if IN_PROGRESS in kept:
            outcome, self.state, self.binding = kept[IN_PROGRESS], "unprovisioned", None
            resumed = ("tell", "wipe_resumed", {"command_id": outcome.get("command_id")})
            return [resumed] + self._wipe(outcome) + [("tell", "powered_on", {"pairing": "unpaired"})]
        if self.binding is None:
            return [("tell", "powered_on", {"pairing": "unpaired"})]
        return [("tell", "powered_on", {"pairing": "paired"}), self._open_link()]

    def _open_link(self):
        connection = "wifi" if self._networks else "4g" if self._kept.get(APN) else "ble"
        return ("open_link", connection, self.binding)

    def _provisioned(self, binding, networks):
        if self.state != "unprovisioned":
            return [("tell", "provisioning_refused", {"reason": "the device is paired; reset it first"})]
        self.state, self.binding, self._networks, self._sequences = "provisioned", binding, networks, {}
        told = {"device_id": binding["device_id"], "generation": binding["binding_generation"]}
        return [
            ("write", "wiped", WIFI, networks),
            self._write_pairing(),
            ("write", "wiped", TOKEN, binding[TOKEN]),  # last: a binding with a token is complete
            ("tell", "provisioned", told),
            self._open_link(),
        ]

    def _write_pairing(self):
        return ("write", "wiped", PAIRING, {name: self.binding[name] for name in self.binding if name != TOKEN})

    def _link_up(self, connection, transport):
        if self.binding is None or self.state == "resetting":
            return []
        self.state, self._connection, self._transport, self._is_refused = "online", connection, transport, False
        self._heartbeats = 0
        birth = [("publish", "status", wire.ONLINE, None, None, None)] if transport == "mqtt" else []
        told = ("tell", "online", {"connection": connection, "transport": transport})
        return [told] + birth + self._heartbeat_due()

    def _link_down(self, reason):
        self._connection = self._transport = self._accepted_reset = None
        if self.state == "online":
            self.state = "provisioned"
        return [("tell", "offline", {"reason": reason})]

    def _heartbeat_due(self):
        if self.state != "online" or self._transport is None:
            return self._ask_for_token()
        body = self.product.report(self._connection, self.binding["binding_generation"])
        body["firmware_version"] = self._kept.get(FIRMWARE)
        body["sent_at"] = self._sent_at()
        # A PUBACK of the broker proves nothing about the gateway: heartbeats number 1, 2, 4, 8 … repeat the last wipe.
        self._heartbeats += 1
        is_due = self._transport != "mqtt" or self._heartbeats & (self._heartbeats - 1) == 0
        word = body["last_command"] = self._last_wipe if is_due else None
        return [("publish", "heartbeat", wire.encode(body), word and word["command_id"], None, None)]

    def _sent_at(self):
        """Equal times would look like a replay of one heartbeat, so each is later than the one before."""
        if self.now is None:
            return None
        last = self._last_heartbeat_at
        self._last_heartbeat_at = self.now if last is None else max(self.now, last + 1)
        return wire.rfc3339(self._last_heartbeat_at)

    def _link_refused(self, refusals, reason):
        self._is_refused = self.state == "provisioned"
        return [("tell", "refused", {"refusals": refusals, "reason": reason})] + self._ask_for_token()

    def _ask_for_token(self):
        """Request a token over HTTP with each heartbeat that is due, until there is an answer."""
        return [("refresh_token", self.binding)] if self._is_refused and self.binding is not None else []

    def _token_refreshed(self, token):
        if self.binding is None or self.state != "provisioned":
            return []
        self._is_refused = False
        self.binding = dict(self.binding)
        self.binding[TOKEN] = token
        told = ("tell", "token_refreshed", {"generation": self.binding["binding_generation"]})
        return [("write", "wiped", TOKEN, token), told, self._open_link()]

    def _refresh_failed(self, reason, revoked):
        self._is_refused = self._is_refused and not revoked
        return [("tell", "token_not_refreshed", {"reason": reason})]

    # --- commands -----------------------------------------------------------------------------------------------------

    def _command(self, topic_type, payload):
        if not payload:
            return self._cleared(topic_type)
        try:
            command = wire.parse_command(payload)
        except (ValueError, RuntimeError, MemoryError) as error:  # the last two: the stack or the heap of a small board
            return _ignored(topic_type, str(error))
        for known in self._outcomes:
            if (known["command_id"], known["type"]) == (command["id"], topic_type):
                told = ("tell", "already_done", {"command_id": known["command_id"], "status": known["status"]})
                return [told, _acknowledge(known)]
        if self.binding is None or self.state == "resetting":
            return _ignored(topic_type, "the device is unpaired or being wiped")
        details = {"command_id": command["id"], "type": topic_type, "generation": command["binding_generation"]}
        return [("tell", "command_received", details)] + self._new_command(command, topic_type)

    def _cleared(self, topic_type):
        """Handle an empty retained message: no command of this type is open, so drop a reset that has not begun."""
        if topic_type != RESET or self._accepted_reset is None:
            return []
        dropped, self._accepted_reset = self._accepted_reset, None
        return [("tell", "reset_withdrawn", {"command_id": dropped["id"]})]

    def _new_command(self, command, topic_type):
        try:
            last = self._sequences.get(topic_type)
            seq, key = grant.check(command, topic_type, self.binding, last, self.now)
            self.product.check(command)
        except grant.RefusalError as refusal:
            return self._refuse(command, topic_type, refusal)
        except MemoryError:  # it has changed nothing yet, and arrives again with the next link
            return _ignored(topic_type, "no memory")
        actions = self._settle_key(key)
        if last != {"seq": seq, "id": command["id"]}:
            self._sequences[topic_type] = {"seq": seq, "id": command["id"]}
            taken = {"generation": self.binding["binding_generation"], "last": self._sequences}
            actions.append(("write", "kept", LAST_SEQUENCES, taken))
        return actions + self._obey(command)

    def _refuse(self, command, topic_type, refusal):
        outcome = self._outcome(command, "failed", refusal.result)
        outcome["type"] = topic_type
        outcome["error"] = {"code": refusal.code, "message": refusal.message}
        # A forgery that is stored could use up an id before the real command arrives.
        kept = [self._remember(outcome)] if refusal.keep else []
        details = {"command_id": command["id"], "type": topic_type, "code": refusal.code}
        return [("tell", "command_refused", details)] + kept + [_acknowledge(outcome)]

    def _obey(self, command):
        delivered = _acknowledge(self._outcome(command, "delivered", None))
        if command["type"] == RESET:
            self._accepted_reset = command  # the reset begins when the delivery of this message is confirmed
            return [delivered]
        if command["type"] == NEW_KEY:
            return [delivered] + self._take_key(command)
        result, effects = self.product.execute(command, self.binding)
        done = [delivered] + effects + self._done(command, result)
        if command["type"] == "reboot":
            self.state = "rebooting"
            done.append(("reboot",))
        return done

    def _done(self, command, result):
        outcome = self._outcome(command, "executed", result)
        return [self._remember(outcome), _acknowledge(outcome)]

    def _outcome(self, command, status, result):
        return {
            "command_id": command["id"],
            "type": command["type"],
            "status": status,
            "receipt": wire.receipt(self.binding[TOKEN], command["id"], status, command["binding_generation"]),
            "result": result,
            "error": None,
        }

    def _remember(self, outcome):
        """Keep the newest outcomes, and the last executed command of each type, however old.

        The sequence of that last command is accepted again, so its id must not be forgotten.
        """
        known = [each for each in self._outcomes if each["command_id"] != outcome["command_id"]] + [outcome]
        last = {each["type"]: each["command_id"] for each in known if each["status"] == "executed"}
        others = [each for each in known[:-REMEMBERED] if last.get(each["type"]) == each["command_id"]]
        self._outcomes = others + known[-REMEMBERED:]
        return ("write", "kept", LAST_COMMANDS, self._outcomes)

    def _settle_key(self, key):
        """Drop the old key when the new one has signed: the gateway has it. Both are in one value of the flash."""
        old = self.binding["grant_key"]
        if key is old:
            return []
        self.binding["grant_key"] = self.binding.pop("next_grant_key")
        return [self._write_pairing(), ("tell", "grant_key_dropped", {"kid": old.get("kid")})]

    def _take_key(self, command):
        """Write the new key beside the old one, which has signed it. A key that the device has changes nothing."""
        try:
            key = grant.new_key(command["params"])
        except grant.RefusalError as refusal:
            return self._refuse(command, NEW_KEY, refusal)
        written = []
        if key["x"] not in [each["x"] for each in grant.keys_of(self.binding)]:
            self.binding["next_grant_key"] = key
            written = [self._write_pairing(), ("tell", "grant_key_added", {"kid": key["kid"]})]
        return written + self._done(command, {"grant_kid": grant.keys_of(self.binding)[0]["kid"]})

    # --- the reset ----------------------------------------------------------------------------------------------------

    def _published(self, action):
        _, kind, _, command_id, _, status = action
        if kind == "ack" and status == "delivered":
            return self._begin_reset(command_id)
        if not self._is_about_last_wipe(command_id):
            return []
        # Only over HTTP the confirmation comes from the gateway.
        forgotten = self._forget_last_wipe() if self._transport not in (None, "mqtt") else []
        return forgotten + self._end_reset()

    def _publish_failed(self, action, reason):
        _, kind, _, command_id, _, _ = action
        if kind == "ack" and self.state == "resetting" and self._is_about_last_wipe(command_id):
            return [("tell", "acknowledgement_lost", {"command_id": command_id})] + self._end_reset()
        if self._accepted_reset is None or command_id != self._accepted_reset["id"]:
            return []
        self._accepted_reset = None  # the retained command arrives again with the next link
        return [("tell", "reset_postponed", {"command_id": command_id, "reason": reason})]

    def _begin_reset(self, command_id):
        command = self._accepted_reset
        if command is None or command_id != command["id"]:
            return []
        self._accepted_reset, self.state = None, "resetting"
        # The receipt needs the token, so it is made and stored before the token is erased.
        outcome = self._outcome(command, "executed", self.product.reset_result(command["params"], WIPED, KEPT))
        return [("write", "kept", IN_PROGRESS, outcome)] + self._wipe(outcome) + [_acknowledge(outcome)]

    def _wipe(self, outcome):
        """Wipe, and store the outcome for the next heartbeats. A repetition is safe."""
        actions = [("erase", "wiped", each) for each in WIPED]
        if outcome:
            if RECORDINGS in outcome["result"]["wiped"]:
                actions.append(("erase", "kept", RECORDINGS))
            self._last_wipe = {name: outcome[name] for name in ("command_id", "status", "receipt")}
            actions += [self._remember(outcome), ("write", "kept", LAST_COMMAND, self._last_wipe)]
        return actions + [("erase", "kept", IN_PROGRESS)]

    def _end_reset(self):
        if self.state != "resetting":
            return []
        self.state = "rebooting"
        return [("reboot",)]

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
        return told + (self._forget_last_wipe() if str(field).startswith("last_command.") else [])

    def _is_about_last_wipe(self, command_id):
        return self._last_wipe is not None and self._last_wipe["command_id"] == command_id

    def _forget_last_wipe(self):
        if self._last_wipe is None:
            return []
        self._last_wipe = None
        return [("erase", "kept", LAST_COMMAND)]


def _ignored(topic_type, reason):
    return [("tell", "command_ignored", {"type": topic_type, "reason": reason})]


def _acknowledge(outcome):
    """Return the publish action of an outcome, with the same bytes each time."""
    fields = {name: outcome.get(name) for name in ("command_id", "status", "receipt", "result", "error")}
    return ("publish", "ack", wire.encode(fields), outcome["command_id"], outcome["type"], outcome["status"])
