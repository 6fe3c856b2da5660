"""Limits in `mosquitto.conf` that depend on the size of the fleet.

The reason and the measurement for each figure: docs/mosquitto.md and docs/scaling.md.
"""

from typing import Final, NamedTuple

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

DEFAULT_DEVICES: Final = 25_000
"""The fleet for which the files are written if no size is given: the lowest limits are good for it."""

MOST_DEVICES: Final = 10_000_000
"""The largest fleet that can be given."""

AUTOSAVE_SECONDS: Final = 5
SAVED_PER_SECOND: Final = 5_000
"""Devices for each second between two saves. A save writes everything and takes 2.5 microseconds a device with its
state, in which Mosquitto serves no client: a hundredth of the time."""

QUEUED_MESSAGES: Final = 100_000
QUEUED_BYTES: Final = 64 * MIB
MESSAGES_PER_DEVICE: Final = 2
BYTES_PER_DEVICE: Final = 2 * KIB
MOST_QUEUED_FOR: Final = 200_000
"""A state has about 1.1 KB, and a new subscriber gets no more states than its queue holds. The queue also bounds what
devices can make the broker hold. So it grows up to the number of states that one Mosquitto is good for."""

MEMORY_BYTES: Final = GIB
MEMORY_BASE: Final = 512 * MIB
MEMORY_PER_DEVICE: Final = 5 * KIB
"""2.9 KB were measured with state and status; the rest is for queues."""

OPEN_FILES: Final = 65_536
OTHER_FILES: Final = 4_096
"""Open files besides the connections of devices: integrators, the gateway, files of the broker."""


class SizeLimits(NamedTuple):
    """Limits of a Mosquitto for a fleet of a certain size."""

    autosave_seconds: int
    queued_messages: int
    queued_bytes: int
    memory_bytes: int
    open_files: int

    @property
    def unit_megabytes(self) -> int:
        """Return the memory for its process in MiB; it also holds connections, which no other limit counts."""
        return (self.memory_bytes + GIB) // MIB


def size_limits(devices: int) -> SizeLimits:
    """Return the limits for so many devices."""
    queued_for = min(devices, MOST_QUEUED_FOR)
    return SizeLimits(
        autosave_seconds=max(AUTOSAVE_SECONDS, devices // SAVED_PER_SECOND),
        queued_messages=max(QUEUED_MESSAGES, MESSAGES_PER_DEVICE * queued_for),
        queued_bytes=max(QUEUED_BYTES, BYTES_PER_DEVICE * queued_for),
        memory_bytes=max(MEMORY_BYTES, MEMORY_BASE + MEMORY_PER_DEVICE * devices),
        open_files=max(OPEN_FILES, OTHER_FILES + devices),
    )
