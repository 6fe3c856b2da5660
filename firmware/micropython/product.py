"""What the product does beside its life cycle: put your recorder, sensor or pump here."""


class Product:
    """What the product does beside its life cycle. Replace it by your own; it may do no more than its results say."""

    def __init__(self):
        self.recording = False
        self.pending = 0

    def report(self, connection):
        """Return the health fields of a heartbeat."""
        state = "recording" if self.recording else "idle"
        return {"device_state": state, "pending_recordings": self.pending, "connection_type": [connection]}

    def execute(self, command_type, params):  # noqa: ARG002  # a product of yours may heed its params
        """Do what a command asks for, and return its `result`. The grant and the params were checked before."""
        if command_type == "start_recording":
            self.recording = True
            return {"recording": True}
        if command_type == "stop_recording":
            self.pending += self.recording
            self.recording = False
            return {"recording": False, "pending_recordings": self.pending}
        if command_type == "trigger_upload":
            uploaded, self.pending = self.pending, 0
            return {"uploaded": uploaded}
        return {"rebooting": True}
