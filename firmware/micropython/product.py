"""What the product does beside its life cycle: put your recorder, sensor or pump here."""

import grant

RECORDINGS = "recordings"


class Product:
    """What the product does beside its life cycle. Replace it by your own; it may do no more than its results say.

    `made_in` has the binding generation of each recording, by its id. No binding of another generation uploads it.
    """

    def power_on(self, kept):
        """Start with what the flash holds. A recording that a power cut ended stays as it is."""
        self.made_in = dict(kept.get(RECORDINGS) or {})
        self.running = None

    def report(self, connection, generation):
        """Return the health fields of a heartbeat."""
        state = "idle" if self.running is None else "recording"
        pending = len(self._waiting(generation))
        return {"device_state": state, "pending_recordings": pending, "connection_type": [connection]}

    def check(self, command):
        """Refuse a reset that says neither to keep nor to wipe the recordings. Its other params mean nothing here."""
        good = command["type"] != "factory_reset" or command["params"].get(RECORDINGS, "keep") in ("keep", "wipe")
        grant.require(good, "invalid_params", "params.recordings of a reset is keep or wipe", keep=True)

    def reset_result(self, params, wiped, kept):
        """Return the result, which also says after a power cut what to wipe. Say here how your flash wipes."""
        count, is_wipe = len(self.made_in), params.get(RECORDINGS) == "wipe"
        wiped += (RECORDINGS,) if is_wipe else ()
        kept += (RECORDINGS,) if count and not is_wipe else ()
        counts = {"wiped": count if is_wipe else 0, "kept": 0 if is_wipe else count}
        return {"wiped": wiped, "kept": kept, RECORDINGS: counts, "technique": dict.fromkeys(wiped, "deleted")}

    def execute(self, command, binding):
        """Do what a command asks for. Return its `result`, and actions that come before the result is stored.

        The grant and the params were checked before. A recording has the id of its command: the same command, after a
        power cut, begins no second one.
        """
        kind, generation = command["type"], binding["binding_generation"]
        if kind == "start_recording":
            begun = self.running is None
            if begun:
                self.running = command["id"]
                self.made_in[self.running] = generation
            return {"recording": True}, self._write() if begun else []
        if kind == "stop_recording":
            self.running = None
            return {"recording": False, "pending_recordings": len(self._waiting(generation))}, []
        waiting = self._waiting(generation)
        if kind == "trigger_upload":
            uploads = [("upload", each, self.made_in.pop(each), binding) for each in waiting]
            return {"uploaded": len(waiting)}, uploads + self._write() if waiting else []
        return {"rebooting": True}, []

    def _waiting(self, generation):
        return sorted(each for each, made_in in self.made_in.items() if made_in == generation and each != self.running)

    def _write(self):
        return [("write", "kept", RECORDINGS, dict(self.made_in))]
