"""The firmware's state machine, without I/O: `Device.handle(event, now)` returns actions for `runtime`, in order.

The power may be cut between any two actions. A new `Device` must then reach the same end from the flash alone.
Events and actions are tuples whose first member is the kind. Events:

- `power_on` wiped kept: the areas of the flash.
- `provisioned` binding networks: made by `wire.binding_from_answer`.
- `link_up` connection transport (`wifi 4g ble`, `mqtt http`); `link_down` reason; `link_refused` refusals reason.
- `heartbeat_due`; `command` type payload; `errors` payload; `local_reset` (the button was held).
- `token_refreshed` token mqtt; `refresh_failed` reason revoked.
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
KEPT = ("serial_number", "cellular_apn", "last_command_id")
IN_PROGRESS, RESET, NEW_KEY = "reset_in_progress", "factory_reset", "set_grant_key"
LAST_COMMANDS, LAST_SEQUENCES, LAST_COMMAND = "last_commands", "last_sequences", "last_command"
REMEMBERED = 16  # outcomes of commands


class Device:
    """RAM of one device. `state` is rebooting, unprovisioned, provisioned, online or resetting."""

    def __init__(self):
        self.state, self._last_heartbeat_at = "rebooting", 0
        self.product = Product()

    def handle(self, event, now):
        """Process one event at `now`, in milliseconds since 1970, or None while the clock is not set.

        A device that reboots ignores all but `power_on`.
        """
        self.now = now
        self._actions = []
        if self.state != "rebooting" or event[0] == "power_on":
            getattr(self, "_" + event[0])(*event[1:])
        return self._actions

    def _do(self, *action):
        self._actions.append(action)

    def _tell(self, name, **details):
        self._do("tell", name, details)

    def _write_pairing(self):
        self._do("write", "wiped", PAIRING, {name: self.binding[name] for name in self.binding if name != TOKEN})

    def _open_link(self):
        connection = "wifi" if self._networks else "4g" if self._kept.get("cellular_apn") else "ble"
        self._do("open_link", connection, self.binding)

    def _reboot(self):
        self.state = "rebooting"
        self._do("reboot")

    def _acknowledge(self, outcome):
        """Publish an outcome, with the same bytes each time."""
        payload = wire.encode({name: outcome[name] for name in outcome if name != "type"})
        self._do("publish", "ack", payload, outcome["command_id"], outcome["type"], outcome["status"])

    def _power_on(self, wiped, kept):
        self.binding, self._networks, self._kept = None, wiped.get(WIFI), kept
        self._connection = self._transport = self._is_refused = None
        self._accepted_reset, self._heartbeats = {}, 0
        self._outcomes, self._last_wipe = kept.get(LAST_COMMANDS, []), kept.get(LAST_COMMAND, {})
        self.product.power_on(kept)
        if IN_PROGRESS in kept:
            self._tell("wipe_resumed", command_id=kept[IN_PROGRESS].get("command_id"))
            self._wipe(kept[IN_PROGRESS])
        elif PAIRING in wiped and TOKEN in wiped:  # with one of them, as after a power cut, there is no binding
            self.binding = dict(wiped[PAIRING], device_token=wiped[TOKEN])
        self.state = "unprovisioned" if self.binding is None else "provisioned"
        self._tell("powered_on", pairing="unpaired" if self.binding is None else "paired")
        if self.binding is not None:
            sequences = kept.get(LAST_SEQUENCES, {})
            is_current = sequences.get("generation") == self.binding["binding_generation"]
            self._sequences = sequences["last"] if is_current else {}
            self._open_link()

    def _provisioned(self, binding, networks):
        if self.state != "unprovisioned":
            self._tell("provisioning_refused", reason="the device is paired; reset it first")
            return
        self.state, self.binding, self._networks, self._sequences = "provisioned", binding, networks, {}
        self._do("write", "wiped", WIFI, networks)
        self._write_pairing()
        self._do("write", "wiped", TOKEN, binding[TOKEN])  # last: a binding with a token is complete
        self._tell("provisioned", device_id=binding["device_id"], generation=binding["binding_generation"])
        self._open_link()

    def _link_up(self, connection, transport):
        if self.binding is None or self.state == "resetting":
            return
        self.state, self._connection, self._transport = "online", connection, transport
        self._is_refused, self._heartbeats = False, 0
        self._tell("online", connection=connection, transport=transport)
        if transport == "mqtt":
            self._do("publish", "status", wire.ONLINE, None, None, None)
        self._heartbeat_due()

    def _link_down(self, reason):
        self._transport, self._accepted_reset = None, {}
        if self.state == "online":
            self.state = "provisioned"
        self._tell("offline", reason=reason)

    def _heartbeat_due(self):
        if self.state != "online" or self._transport is None:
            self._ask_for_token()
            return
        body = self.product.report(self._connection, self.binding["binding_generation"])
        body["firmware_version"] = self._kept.get("firmware_version")
        if self.now is not None:
            # Equal times would look like a replay of one heartbeat, so each is later than the one before.
            self._last_heartbeat_at = max(self.now, self._last_heartbeat_at + 1)
            body["sent_at"] = wire.rfc3339(self._last_heartbeat_at)
        # A PUBACK of the broker proves nothing about the gateway: heartbeats number 1, 2, 4, 8 … repeat the last wipe.
        self._heartbeats += 1
        if self._last_wipe and (self._transport != "mqtt" or self._heartbeats & (self._heartbeats - 1) == 0):
            body["last_command"] = self._last_wipe
        command_id = body.get("last_command", {}).get("command_id")
        self._do("publish", "heartbeat", wire.encode(body), command_id, None, None)

    def _link_refused(self, refusals, reason):
        self._is_refused = self.state == "provisioned"
        self._tell("refused", refusals=refusals, reason=reason)
        self._ask_for_token()

    def _ask_for_token(self):
        """Request a token over HTTP with each heartbeat that is due, until there is an answer."""
        if self._is_refused and self.binding is not None:
            self._do("refresh_token", self.binding)

    def _token_refreshed(self, token, mqtt):
        if self.state == "provisioned":
            is_moved = mqtt != self.binding["mqtt"]
            self._is_refused, self.binding = False, dict(self.binding, device_token=token, mqtt=mqtt)
            self._do("write", "wiped", TOKEN, token)
            if is_moved:  # after a power cut before this the former broker refuses the token, so the device asks again
                self._write_pairing()
            self._tell("token_refreshed", generation=self.binding["binding_generation"])
            self._open_link()

    def _refresh_failed(self, reason, revoked):
        self._is_refused = self._is_refused and not revoked
        self._tell("token_not_refreshed", reason=reason)

    # --- commands -----------------------------------------------------------------------------------------------------

    def _command(self, topic_type, payload):
        if not payload:  # no command of this type is open, so drop a reset that has not begun
            if topic_type == RESET and self._accepted_reset:
                self._tell("reset_withdrawn", command_id=self._accepted_reset["id"])
                self._accepted_reset = {}
            return
        try:
            command = wire.parse_command(topic_type, payload)
            command_id, generation = command["id"], command["binding_generation"]
            for known in self._outcomes:
                if (known["command_id"], known["type"]) == (command_id, topic_type):
                    self._tell("already_done", command_id=command_id, status=known["status"])
                    self._acknowledge(known)
                    return
            if self.binding is None or self.state == "resetting":
                raise ValueError("the device is unpaired or being wiped")
            self._tell("command_received", command_id=command_id, type=topic_type, generation=generation)
            seq, key = grant.check(command, self.binding, self._sequences.get(topic_type), self.now)
            self.product.check(command)
        except grant.RefusalError as refusal:
            self._refuse(command, refusal)
        except (ValueError, RuntimeError, MemoryError) as error:  # the last two: the stack or the heap of a small board
            self._tell("command_ignored", type=topic_type, reason=str(error))
        else:
            self._take(topic_type, {"seq": seq, "id": command_id}, key)
            self._obey(command)

    def _take(self, topic_type, taken, key):
        """Store key, number and id of a command before it is obeyed. A repetition writes nothing."""
        old = self.binding["grant_key"]
        if key is not old:  # the new key has signed, so the gateway has it: drop the old one, in one write
            self.binding["grant_key"] = self.binding.pop("next_grant_key")
            self._write_pairing()
            self._tell("grant_key_dropped", kid=old.get("kid"))
        if self._sequences.get(topic_type) != taken:
            self._sequences[topic_type] = taken
            generation = self.binding["binding_generation"]
            self._do("write", "kept", LAST_SEQUENCES, {"generation": generation, "last": self._sequences})

    def _obey(self, command):
        self._acknowledge(self._outcome(command, "delivered"))
        if command["type"] == RESET:
            self._accepted_reset = command  # the reset begins when the delivery of this message is confirmed
            return
        if command["type"] == NEW_KEY and not grant.is_new_key(command["params"]):
            message = "the params are no public Ed25519 key as a JWK"
            self._refuse(command, grant.RefusalError("invalid_grant_key", message, keep=True))
            return
        outcome = self._outcome(command, "executed", self._execute(command))
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
        key = command["params"]
        if key["x"] not in [each["x"] for each in grant.keys_of(self.binding)]:
            self.binding["next_grant_key"] = key
            self._write_pairing()
            self._tell("grant_key_added", kid=key["kid"])
        return {"grant_kid": grant.keys_of(self.binding)[0]["kid"]}

    def _refuse(self, command, refusal):
        error = {"code": refusal.code, "message": refusal.message}
        outcome = self._outcome(command, "failed", refusal.result, error)
        self._tell("command_refused", command_id=command["id"], type=outcome["type"], code=refusal.code)
        if refusal.keep:  # a forgery that is stored could use up an id before the real command arrives
            self._remember(outcome)
        self._acknowledge(outcome)

    def _outcome(self, command, status, result=None, error=None):
        word = wire.receipt(self.binding[TOKEN], command["id"], status, command["binding_generation"])
        outcome = {"command_id": command["id"], "type": command["topic_type"], "status": status}
        return dict(outcome, receipt=word, result=result, error=error)

    def _remember(self, outcome):
        """Keep the newest outcomes, and the last executed command of each type, however old.

        The sequence of that last command is accepted again, so its id must not be forgotten.
        """
        known = [each for each in self._outcomes if each["command_id"] != outcome["command_id"]] + [outcome]
        last = {each["type"]: each["command_id"] for each in known if each["status"] == "executed"}
        older = [each for each in known[:-REMEMBERED] if last.get(each["type"]) == each["command_id"]]
        self._outcomes = older + known[-REMEMBERED:]
        self._do("write", "kept", LAST_COMMANDS, self._outcomes)

    # --- the reset ----------------------------------------------------------------------------------------------------

    def _published(self, action):
        _, _, _, command_id, _, status = action
        if status == "delivered":
            if command_id == self._accepted_reset.get("id"):
                self._begin_reset(self._accepted_reset)
        elif command_id == self._last_wipe.get("command_id", ""):
            if self._transport not in (None, "mqtt"):  # only over HTTP the confirmation comes from the gateway
                self._forget_last_wipe()
            if self.state == "resetting":
                self._reboot()

    def _publish_failed(self, action, reason):
        _, kind, _, command_id, _, _ = action
        if kind == "ack" and self.state == "resetting" and command_id == self._last_wipe.get("command_id"):
            self._tell("acknowledgement_lost", command_id=command_id)
            self._reboot()
        elif command_id == self._accepted_reset.get("id", ""):
            self._accepted_reset = {}  # the retained command arrives again with the next link
            self._tell("reset_postponed", command_id=command_id, reason=reason)

    def _begin_reset(self, command):
        self._accepted_reset, self.state = {}, "resetting"
        # The receipt needs the token, so it is made and stored before the token is erased.
        outcome = self._outcome(command, "executed", self.product.reset_result(command["params"], WIPED, KEPT))
        self._do("write", "kept", IN_PROGRESS, outcome)
        self._wipe(outcome)
        self._acknowledge(outcome)

    def _wipe(self, outcome):
        """Wipe, and store the outcome for the next heartbeats. A repetition is safe."""
        for name in WIPED:
            self._do("erase", "wiped", name)
        if outcome:
            if RECORDINGS in outcome["result"]["wiped"]:
                self.product.power_on({})  # or the next write of the index brings them back from RAM
                self._do("erase", "kept", RECORDINGS)
            self._remember(outcome)
            self._last_wipe = {name: outcome[name] for name in ("command_id", "status", "receipt")}
            self._do("write", "kept", LAST_COMMAND, self._last_wipe)
        self._do("erase", "kept", IN_PROGRESS)

    def _local_reset(self):
        """Wipe because the button was held. There is no command, so there is nothing to acknowledge."""
        if self.state != "resetting":
            self._tell("local_reset")
            self._do("write", "kept", IN_PROGRESS, {})
            self._wipe({})
            self._reboot()

    def _errors(self, payload):
        """Process a refusal of the gateway. If it refuses the outcome of the last wipe, it never accepts it."""
        self._tell("message_refused", answer=payload)
        try:
            if str(wire.read_json(payload)["field"]).startswith("last_command."):
                self._forget_last_wipe()
        except (ValueError, KeyError, TypeError):
            pass

    def _forget_last_wipe(self):
        if self._last_wipe:
            self._last_wipe = {}
            self._do("erase", "kept", LAST_COMMAND)
