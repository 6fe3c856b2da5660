"""The firmware's state machine, without I/O: `Device.handle(event, now)` returns actions for `runtime`, in order.

The power may be cut between any two actions. A new `Device` must then reach the same end from the flash alone.
Events and actions are tuples whose first member is the kind. Events:

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
        self.state = "unprovisioned" if self.binding is None else "provisioned"

    def handle(self, event, now):
        """Process one event at `now`, in milliseconds since 1970, or None while the clock is not set.

        A device that reboots ignores all but `power_on`.
        """
        self.now = now
        self._actions = []
        if self.state != "rebooting" or event[0] == "power_on":
            getattr(self, "_" + event[0])(*event[1:])
        return self._actions

    def _tell(self, name, **details):
        self._actions.append(("tell", name, details))

    def _write(self, area, name, value):
        self._actions.append(("write", area, name, value))

    def _erase(self, area, name):
        self._actions.append(("erase", area, name))

    def _write_pairing(self):
        self._write("wiped", PAIRING, {name: self.binding[name] for name in self.binding if name != TOKEN})

    def _open_link(self):
        connection = "wifi" if self._networks else "4g" if self._kept.get(APN) else "ble"
        self._actions.append(("open_link", connection, self.binding))

    def _reboot(self):
        self.state = "rebooting"
        self._actions.append(("reboot",))

    def _acknowledge(self, outcome):
        """Publish an outcome, with the same bytes each time."""
        payload = wire.encode({name: outcome[name] for name in ("command_id", "status", "receipt", "result", "error")})
        self._actions.append(("publish", "ack", payload, outcome["command_id"], outcome["type"], outcome["status"]))

    def _power_on(self, wiped, kept):
        self._load(wiped, kept)
        if IN_PROGRESS in kept:
            self.state, self.binding = "unprovisioned", None
            self._tell("wipe_resumed", command_id=kept[IN_PROGRESS].get("command_id"))
            self._wipe(kept[IN_PROGRESS])
        self._tell("powered_on", pairing="unpaired" if self.binding is None else "paired")
        if self.binding is not None:
            self._open_link()

    def _provisioned(self, binding, networks):
        if self.state != "unprovisioned":
            self._tell("provisioning_refused", reason="the device is paired; reset it first")
            return
        self.state, self.binding, self._networks, self._sequences = "provisioned", binding, networks, {}
        self._write("wiped", WIFI, networks)
        self._write_pairing()
        self._write("wiped", TOKEN, binding[TOKEN])  # last: a binding with a token is complete
        self._tell("provisioned", device_id=binding["device_id"], generation=binding["binding_generation"])
        self._open_link()

    def _link_up(self, connection, transport):
        if self.binding is None or self.state == "resetting":
            return
        self.state, self._connection, self._transport, self._is_refused = "online", connection, transport, False
        self._heartbeats = 0
        self._tell("online", connection=connection, transport=transport)
        if transport == "mqtt":
            self._actions.append(("publish", "status", wire.ONLINE, None, None, None))
        self._heartbeat_due()

    def _link_down(self, reason):
        self._connection = self._transport = self._accepted_reset = None
        if self.state == "online":
            self.state = "provisioned"
        self._tell("offline", reason=reason)

    def _heartbeat_due(self):
        if self.state != "online" or self._transport is None:
            self._ask_for_token()
            return
        body = self.product.report(self._connection, self.binding["binding_generation"])
        body["firmware_version"] = self._kept.get(FIRMWARE)
        if self.now is not None:
            # Equal times would look like a replay of one heartbeat, so each is later than the one before.
            last = self._last_heartbeat_at
            self._last_heartbeat_at = self.now if last is None else max(self.now, last + 1)
            body["sent_at"] = wire.rfc3339(self._last_heartbeat_at)
        # A PUBACK of the broker proves nothing about the gateway: heartbeats number 1, 2, 4, 8 … repeat the last wipe.
        self._heartbeats += 1
        is_due = self._transport != "mqtt" or self._heartbeats & (self._heartbeats - 1) == 0
        word = body["last_command"] = self._last_wipe if is_due else None
        self._actions.append(("publish", "heartbeat", wire.encode(body), word and word["command_id"], None, None))

    def _link_refused(self, refusals, reason):
        self._is_refused = self.state == "provisioned"
        self._tell("refused", refusals=refusals, reason=reason)
        self._ask_for_token()

    def _ask_for_token(self):
        """Request a token over HTTP with each heartbeat that is due, until there is an answer."""
        if self._is_refused and self.binding is not None:
            self._actions.append(("refresh_token", self.binding))

    def _token_refreshed(self, token):
        if self.binding is None or self.state != "provisioned":
            return
        self._is_refused = False
        self.binding = dict(self.binding)
        self.binding[TOKEN] = token
        self._write("wiped", TOKEN, token)
        self._tell("token_refreshed", generation=self.binding["binding_generation"])
        self._open_link()

    def _refresh_failed(self, reason, revoked):
        self._is_refused = self._is_refused and not revoked
        self._tell("token_not_refreshed", reason=reason)

    # --- commands -----------------------------------------------------------------------------------------------------

    def _command(self, topic_type, payload):
        if not payload:  # no command of this type is open, so drop a reset that has not begun
            if topic_type == RESET and self._accepted_reset is not None:
                self._tell("reset_withdrawn", command_id=self._accepted_reset["id"])
                self._accepted_reset = None
            return
        try:
            command = wire.parse_command(payload)
        except (ValueError, RuntimeError, MemoryError) as error:  # the last two: the stack or the heap of a small board
            self._tell("command_ignored", type=topic_type, reason=str(error))
            return
        for known in self._outcomes:
            if (known["command_id"], known["type"]) == (command["id"], topic_type):
                self._tell("already_done", command_id=known["command_id"], status=known["status"])
                self._acknowledge(known)
                return
        if self.binding is None or self.state == "resetting":
            self._tell("command_ignored", type=topic_type, reason="the device is unpaired or being wiped")
            return
        generation = command["binding_generation"]
        self._tell("command_received", command_id=command["id"], type=topic_type, generation=generation)
        try:
            last = self._sequences.get(topic_type)
            seq, key = grant.check(command, topic_type, self.binding, last, self.now)
            self.product.check(command)
        except grant.RefusalError as refusal:
            self._refuse(command, topic_type, refusal)
        except MemoryError:  # it has changed nothing yet, and arrives again with the next link
            self._tell("command_ignored", type=topic_type, reason="no memory")
        else:
            self._settle_key(key)
            self._take(topic_type, {"seq": seq, "id": command["id"]})
            self._obey(command)

    def _settle_key(self, key):
        """Drop the old key when the new one has signed: the gateway has it. Both are in one value of the flash."""
        old = self.binding["grant_key"]
        if key is not old:
            self.binding["grant_key"] = self.binding.pop("next_grant_key")
            self._write_pairing()
            self._tell("grant_key_dropped", kid=old.get("kid"))

    def _take(self, topic_type, taken):
        """Store number and id of a command before it is obeyed. A repetition writes nothing."""
        if self._sequences.get(topic_type) != taken:
            self._sequences[topic_type] = taken
            generation = self.binding["binding_generation"]
            self._write("kept", LAST_SEQUENCES, {"generation": generation, "last": self._sequences})

    def _obey(self, command):
        self._acknowledge(self._outcome(command, "delivered", None))
        if command["type"] == RESET:
            self._accepted_reset = command  # the reset begins when the delivery of this message is confirmed
            return
        try:
            result = self._execute(command)
        except grant.RefusalError as refusal:
            self._refuse(command, command["type"], refusal)
            return
        outcome = self._outcome(command, "executed", result)
        self._remember(outcome)
        self._acknowledge(outcome)
        if command["type"] == "reboot":
            self._reboot()

    def _execute(self, command):
        """Execute a command, and return its result. A new key is written beside the old one, which has signed it."""
        if command["type"] != NEW_KEY:
            result, actions = self.product.execute(command, self.binding)
            self._actions += actions
            return result
        key = grant.new_key(command["params"])
        if key["x"] not in [each["x"] for each in grant.keys_of(self.binding)]:
            self.binding["next_grant_key"] = key
            self._write_pairing()
            self._tell("grant_key_added", kid=key["kid"])
        return {"grant_kid": grant.keys_of(self.binding)[0]["kid"]}

    def _refuse(self, command, topic_type, refusal):
        outcome = self._outcome(command, "failed", refusal.result)
        outcome["type"] = topic_type
        outcome["error"] = {"code": refusal.code, "message": refusal.message}
        self._tell("command_refused", command_id=command["id"], type=topic_type, code=refusal.code)
        if refusal.keep:  # a forgery that is stored could use up an id before the real command arrives
            self._remember(outcome)
        self._acknowledge(outcome)

    def _outcome(self, command, status, result):
        word = wire.receipt(self.binding[TOKEN], command["id"], status, command["binding_generation"])
        names = {"command_id": command["id"], "type": command["type"], "status": status, "receipt": word}
        names["result"], names["error"] = result, None
        return names

    def _remember(self, outcome):
        """Keep the newest outcomes, and the last executed command of each type, however old.

        The sequence of that last command is accepted again, so its id must not be forgotten.
        """
        known = [each for each in self._outcomes if each["command_id"] != outcome["command_id"]] + [outcome]
        last = {each["type"]: each["command_id"] for each in known if each["status"] == "executed"}
        older = [each for each in known[:-REMEMBERED] if last.get(each["type"]) == each["command_id"]]
        self._outcomes = older + known[-REMEMBERED:]
        self._write("kept", LAST_COMMANDS, self._outcomes)

    # --- the reset ----------------------------------------------------------------------------------------------------

    def _published(self, action):
        _, kind, _, command_id, _, status = action
        if kind == "ack" and status == "delivered":
            if self._accepted_reset is not None and command_id == self._accepted_reset["id"]:
                self._begin_reset(self._accepted_reset)
        elif self._is_about_last_wipe(command_id):
            if self._transport not in (None, "mqtt"):  # only over HTTP the confirmation comes from the gateway
                self._forget_last_wipe()
            if self.state == "resetting":
                self._reboot()

    def _publish_failed(self, action, reason):
        _, kind, _, command_id, _, _ = action
        if kind == "ack" and self.state == "resetting" and self._is_about_last_wipe(command_id):
            self._tell("acknowledgement_lost", command_id=command_id)
            self._reboot()
        elif self._accepted_reset is not None and command_id == self._accepted_reset["id"]:
            self._accepted_reset = None  # the retained command arrives again with the next link
            self._tell("reset_postponed", command_id=command_id, reason=reason)

    def _begin_reset(self, command):
        self._accepted_reset, self.state = None, "resetting"
        # The receipt needs the token, so it is made and stored before the token is erased.
        outcome = self._outcome(command, "executed", self.product.reset_result(command["params"], WIPED, KEPT))
        self._write("kept", IN_PROGRESS, outcome)
        self._wipe(outcome)
        self._acknowledge(outcome)

    def _wipe(self, outcome):
        """Wipe, and store the outcome for the next heartbeats. A repetition is safe."""
        for name in WIPED:
            self._erase("wiped", name)
        if outcome:
            if RECORDINGS in outcome["result"]["wiped"]:
                self.product.power_on({})  # or the next write of the index brings them back from RAM
                self._erase("kept", RECORDINGS)
            self._remember(outcome)
            self._last_wipe = {name: outcome[name] for name in ("command_id", "status", "receipt")}
            self._write("kept", LAST_COMMAND, self._last_wipe)
        self._erase("kept", IN_PROGRESS)

    def _local_reset(self):
        """Wipe because the button was held. There is no command, so there is nothing to acknowledge."""
        if self.state == "resetting":
            return
        self._tell("local_reset")
        self._write("kept", IN_PROGRESS, {})
        self._wipe({})
        self._reboot()

    def _errors(self, payload):
        """Process a refusal of the gateway. If it refuses the outcome of the last wipe, it never accepts it."""
        self._tell("message_refused", answer=payload)
        try:
            field = wire.read_json(payload)["field"]
        except (ValueError, KeyError, TypeError):
            return
        if str(field).startswith("last_command."):
            self._forget_last_wipe()

    def _is_about_last_wipe(self, command_id):
        return self._last_wipe is not None and self._last_wipe["command_id"] == command_id

    def _forget_last_wipe(self):
        if self._last_wipe is not None:
            self._last_wipe = None
            self._erase("kept", LAST_COMMAND)
