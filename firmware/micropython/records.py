"""What a device remembers beyond a reset: outcomes of commands, sequence numbers, the outcome of the last wipe."""

import wire

REMEMBERED = 16
LAST_COMMANDS, LAST_SEQUENCES, LAST_COMMAND = "last_commands", "last_sequences", "last_command"


def acknowledge(outcome):
    """Return the publish action of an outcome, with the same bytes each time."""
    fields = {name: outcome.get(name) for name in ("command_id", "status", "receipt", "result", "error")}
    return ("publish", "ack", wire.encode(fields), outcome["command_id"], outcome["type"], outcome["status"])


class Journal:
    """The newest outcomes, oldest first, and the last executed command of each type, however old.

    The sequence of that last command is accepted again, so its id must not be forgotten.
    """

    def __init__(self, kept):
        self.outcomes = _bounded(kept.get(LAST_COMMANDS) or [])

    def find(self, command_id, command_type):
        """Return the outcome of a command, or None when it is unknown or forgotten."""
        for each in self.outcomes:
            if each["command_id"] == command_id and each["type"] == command_type:
                return each
        return None

    def remember(self, outcome):
        """Add an outcome, replace one of the same id, drop the oldest; return the action that stores the journal."""
        others = [each for each in self.outcomes if each["command_id"] != outcome["command_id"]]
        self.outcomes = _bounded(others + [outcome])
        return ("write", "kept", LAST_COMMANDS, self.outcomes)


def _bounded(outcomes):
    last_done = {each["type"]: each["command_id"] for each in outcomes if each["status"] == "executed"}
    oldest = len(outcomes) - REMEMBERED
    return [
        each for at, each in enumerate(outcomes) if at >= oldest or last_done.get(each["type"]) == each["command_id"]
    ]


class Sequences:
    """The last `seq` of each type with the id of its command, under the binding of one generation."""

    def __init__(self, generation, kept):
        stored = kept.get(LAST_SEQUENCES) or {}
        self.generation = generation
        self.last = dict(stored["last"]) if generation is not None and stored.get("generation") == generation else {}

    def allow(self, command_type, seq, command_id):
        """Return whether this command is later than the last one of its type, or is that one itself."""
        last = self.last.get(command_type)
        return last is None or seq > last["seq"] or (seq == last["seq"] and command_id == last["id"])

    def take(self, command_type, seq, command_id):
        """Record a command before it is executed. A repetition writes nothing, which saves flash."""
        if self.last.get(command_type) == {"seq": seq, "id": command_id}:
            return []
        self.last[command_type] = {"seq": seq, "id": command_id}
        return [("write", "kept", LAST_SEQUENCES, {"generation": self.generation, "last": dict(self.last)})]


class LastWipe:
    """The outcome of the last wipe, repeated in heartbeats until the gateway confirms or refuses it.

    A PUBACK comes from the broker and proves nothing about the gateway. So over MQTT the heartbeats number 1, 2, 4, 8
    and so on of each connection carry it. Over HTTP the first confirmation ends it.
    """

    def __init__(self, kept):
        self.word = kept.get(LAST_COMMAND)
        self.heartbeats = 0

    def keep(self, outcome):
        """Store the outcome of a finished wipe."""
        self.word = {name: outcome[name] for name in ("command_id", "status", "receipt")}
        return ("write", "kept", LAST_COMMAND, self.word)

    def is_about(self, command_id):
        """Return whether the stored outcome is about this command."""
        return self.word is not None and self.word["command_id"] == command_id

    def in_next_heartbeat(self, transport):
        """Return the outcome for the next heartbeat, or None. Call it once for each heartbeat."""
        self.heartbeats += 1
        due = transport != "mqtt" or self.heartbeats & (self.heartbeats - 1) == 0
        return self.word if due else None

    def forget(self):
        """Erase the outcome: the gateway has it, or never accepts it."""
        if self.word is None:
            return []
        self.word = None
        return [("erase", "kept", LAST_COMMAND)]
