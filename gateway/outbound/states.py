"""Device state: ``devices/{id}/state``, the device object, retained, for integrators (contract, section 3).

``projects/{project_id}/devices/{id}/state`` is the same for integrators of one project. It exists while there is such
an account. A broker's file of access rules cannot know the project of a device, so the topic names it.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.core.topics import Topics
from gateway.store import View, account_sql, device_sql, outbox_sql
from gateway.store.device_sql import DeviceRecord

_HEARD: Final = re.compile(rb'"last_heartbeat_at":("[^"]*"|null),')


class StateTopic:
    """The device as the API shows it."""

    detail = outbox_sql.STATE

    def __init__(self, names: Topics) -> None:
        self._names = names

    def topic(self, device_id: str, project_id: str) -> str:
        """Return the topic."""
        del project_id
        return self._names.state(device_id)

    def projects(self, view: View) -> frozenset[str] | None:
        """Return None: devices of all projects are mirrored."""
        del view
        return None

    def device_of(self, topic: str, payload: bytes) -> str | None:
        """Return the device of this state. All on these topics is ours: one gateway per broker and prefix."""
        del payload
        return self._names.device_of_state(topic)

    def payload(self, device: DeviceRecord) -> bytes:
        """Return the device object as JSON."""
        return device_sql.to_model(device).model_dump_json().encode()

    def compared(self, payload: bytes) -> bytes:
        """Return all but the time of the last heartbeat, which alone is no reason to publish."""
        return _HEARD.sub(b"", payload, count=1)


class ProjectStateLeaf(StateTopic):
    """The same on the topics of the device's project."""

    detail = outbox_sql.PROJECT_STATE

    def topic(self, device_id: str, project_id: str) -> str:
        """Return the topic."""
        return self._names.project_state(project_id, device_id)

    def projects(self, view: View) -> frozenset[str]:
        """Return the projects that have an integrator."""
        return account_sql.projects(view)

    def device_of(self, topic: str, payload: bytes) -> str | None:
        """Return the device of this state."""
        del payload
        return self._names.device_of_project_state(topic)
