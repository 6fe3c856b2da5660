"""Resources of a contract run at the API under test, on which calls can succeed.

The file named by ``CONTRACT_FACTS`` says where the API is, the key of the project under test, and ids and words of
another project, and credentials that open nothing or not everything.
"""

import json
import os
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, Final

import requests

from gateway.domain.webhooks import MOST_PER_PROJECT

FACTS: Final = json.loads(Path(os.environ["CONTRACT_FACTS"]).read_text(encoding="utf-8"))
URL: Final[str] = FACTS["url"]
NOWHERE: Final = "https://127.0.0.1:9/"
LOOK_SECONDS: Final = 0.02

numbers = count()
known: dict[str, str | None] = {}
"""Ids of what there is, each with the id of what it belongs to."""
tokens: dict[str, str] = {}
"""The token of each device that has a good one."""


class SchemathesisCaller:
    """Calls the API beside schemathesis, with the key of the project."""

    def __init__(self) -> None:
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {FACTS['key']}"

    def get(self, path: str) -> dict[str, Any]:
        """What the gateway answers, an error too."""
        content: dict[str, Any] = self.session.get(f"{URL}{path}", timeout=60).json()
        return content

    def hooked(self) -> str:
        """A webhook for every event; an older one makes room where there are as many as there may be."""
        hooks = self.get("/v1/webhooks?limit=100")["data"]
        if len(hooks) >= MOST_PER_PROJECT:
            self.session.delete(f"{URL}/v1/webhooks/{hooks[-1]['id']}", timeout=60)
        hook_id: str = self.post("/v1/webhooks", {"url": NOWHERE})["id"]
        return hook_id

    def delivered(self, hook_id: str, cause: Callable[[], object]) -> dict[str, str]:
        """A delivery to this webhook; ``cause`` causes an event. The worker picks it up a moment later."""
        cause()
        while (found := self.get(f"/v1/webhooks/{hook_id}/deliveries").get("data")) == []:
            time.sleep(LOOK_SECONDS)
        return {"webhook_id": hook_id, "delivery_id": found[0]["id"]} if found else {}

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """What the gateway answers."""
        answer = self.session.post(f"{URL}{path}", json=body, timeout=60)
        answer.raise_for_status()
        content: dict[str, Any] = answer.json()
        return content


class OwnResources:
    """A webhook, and a bound device with an open command; new ones when schemathesis has worn them out."""

    def __init__(self) -> None:
        self.caller = SchemathesisCaller()
        self.hook_id = self.device_id = self.command_id = ""

    def fresh(self) -> "OwnResources":
        """Those that are good for a while."""
        if self.device_id not in tokens:
            self.hook_id = self.caller.hooked()
            self.device_id = self.registered()
            bound = self.caller.post(f"/v1/devices/{self.device_id}/bind", {"end_user_id": "eu_1"})
            tokens[self.device_id] = bound["device_token"]
            self.command_id = self.caller.post(f"/v1/devices/{self.device_id}/commands", {"type": "reboot"})["id"]
            known.update({self.hook_id: None, self.device_id: None, self.command_id: self.device_id})
        return self

    def registered(self) -> str:
        """A device that was never bound."""
        device_id: str = self.caller.post("/v1/devices", {"serial_number": f"own {next(numbers)}"})["id"]
        return device_id

    def reset(self) -> dict[str, str]:
        """A reset that has ended: a bind has superseded it."""
        path = f"/v1/devices/{(device_id := self.registered())}"
        self.caller.post(f"{path}/bind", {"end_user_id": "eu_1"})
        self.caller.post(f"{path}/reset", {})
        command_id: str = self.caller.get(f"{path}/commands")["data"][0]["id"]
        self.caller.post(f"{path}/bind", {"end_user_id": "eu_2", "supersede_reset": True})
        return {"device_id": device_id, "command_id": command_id}

    def job(self, *verbs: str) -> dict[str, str]:
        """A job that waits for its device, after these changes."""
        asked = {"name": "own", "action": "factory_reset", "targets": {"device_ids": [self.registered()]}}
        job_id: str = self.caller.post("/v1/jobs", asked)["id"]
        for verb in verbs:
            self.caller.post(f"/v1/jobs/{job_id}/{verb}", {})
        known[job_id] = None
        return {"job_id": job_id}

    def arranged(self, operation_id: str) -> dict[str, str]:
        """A path on which the operation can succeed; none where any will do."""
        arrange: dict[str, Callable[[], dict[str, str]]] = {
            "bind_device": lambda: {"device_id": self.registered()},
            "create_command": lambda: {"device_id": self.fresh().device_id},
            "get_certificate": self.reset,
            "replay_delivery": lambda: self.caller.delivered(self.caller.hooked(), self.registered),
            "pause_job": self.job,
            "resume_job": lambda: self.job("pause"),
            "cancel_job": self.job,
        }
        return arrange.get(operation_id, dict[str, str])()


own = OwnResources()
