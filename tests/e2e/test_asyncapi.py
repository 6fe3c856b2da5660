"""The AsyncAPI document: valid by its project's own parser, kept and served, and true on a real broker."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from gateway.http.spec.asyncapi import document
from tests.e2e.program import run, script
from tests.e2e.support import Site, running, running_site
from tests.support import node, wire
from tests.support.wait import eventually

COPY = Path(__file__).parents[2] / "docs" / "asyncapi.json"
DOCUMENT: dict[str, Any] = json.loads(document())
CHANNELS: dict[str, Any] = DOCUMENT["channels"]
MESSAGES: dict[str, Any] = DOCUMENT["components"]["messages"]
OPERATIONS: dict[str, Any] = DOCUMENT["operations"]
RETAINED = {
    each["channel"]["$ref"].rpartition("/")[2] for each in OPERATIONS.values() if each["bindings"]["mqtt"]["retain"]
}
EAR = "ear"
"""A separate user: Mosquitto admits each only once at a time."""


def channel_of(topic: str) -> str:
    """The channel that this topic belongs to, its parameters within what the document lets them be."""
    for name, channel in CHANNELS.items():
        pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(channel["address"]))
        if found := re.fullmatch(pattern, topic):
            for parameter, value in found.groupdict().items():
                allowed = DOCUMENT["components"]["parameters"][parameter].get("enum")
                assert allowed is None or value in allowed, topic
            return str(name)
    raise AssertionError(f"{topic} is in no channel")


def check(topic: str, payload: bytes) -> str:
    """The channel of a message, which the document's schema has to take."""
    name = channel_of(topic)
    if not payload:
        assert name in RETAINED, f"{topic} is no retained topic, and empty"
        return name
    schema = {"$ref": MESSAGES[name]["payload"]["$ref"], "components": DOCUMENT["components"]}
    errors = [error.message for error in Draft202012Validator(schema).iter_errors(json.loads(payload))]
    assert errors == [], f"{topic}: {payload.decode()}"
    return name


async def test_it_is_valid_asyncapi() -> None:
    """By the parser of the AsyncAPI project, without a warning; it sees every operation."""
    said = json.loads(await node.run(node.SOURCE / "asyncapi.js", str(COPY)))
    print(said["diagnostics"])  # noqa: T201 - pytest shows it on failure
    assert said["version"] == "3.0.0"
    assert [each for each in said["diagnostics"] if each["severity"] < 2] == []
    assert {each["code"] for each in said["diagnostics"]} <= {"asyncapi-latest-version"}
    assert set(said["operations"]) == set(OPERATIONS)


def test_the_stored_copy_is_what_the_command_writes() -> None:
    """``python -m gateway.http.spec.asyncapi > docs/asyncapi.json``."""
    printed = subprocess.run(
        [sys.executable, "-m", "gateway.http.spec.asyncapi"], check=True, capture_output=True
    ).stdout
    assert printed == document() == COPY.read_bytes()


@pytest.mark.parametrize("name", MESSAGES)
def test_the_examples_match_the_schemas(name: str) -> None:
    """Each by its own schema, on a topic of its channel."""
    for example in MESSAGES[name]["examples"]:
        parameters = DOCUMENT["components"]["parameters"]
        topic = CHANNELS[name]["address"]
        for parameter in CHANNELS[name]["parameters"]:
            known = parameters[parameter]
            topic = topic.replace(f"{{{parameter}}}", (known.get("enum") or known["examples"])[0])
        assert check(topic, json.dumps(example["payload"]).encode()) == name


class Listener:
    """A client that receives everything on the broker, and checks each message against the document."""

    def __init__(self, client: wire.Wire) -> None:
        self._client = client
        self.heard: dict[str, list[wire.Message]] = {}

    async def listen(self) -> None:
        """Until cancelled."""
        while True:
            message = await self._client.read_publish()
            if message.qos:
                await self._client.acknowledge(message)
            self.heard.setdefault(check(message.topic, message.payload), []).append(message)

    async def hears(self, name: str, part: bytes = b"") -> None:
        """Wait for a message of this name with this in it."""
        await eventually(
            lambda: any(part in message.payload for message in self.heard.get(name, [])), f"{name} with {part!r} comes"
        )


@asynccontextmanager
async def listening(site: Site) -> AsyncIterator[Listener]:
    """A listener for as long as the block runs; what it found wrong is raised at the end."""
    with site.broker.files.acl.open("a") as acl:
        acl.write(f"\nuser {EAR}\ntopic read #\n")
    await site.broker.add_users({EAR: "ear-password"})
    async with site.broker.client(EAR) as client:
        await client.subscribe("#")
        listener = Listener(client)
        task = asyncio.create_task(listener.listen())
        try:
            yield listener
        finally:
            task.cancel()
            outcome = (await asyncio.gather(task, return_exceptions=True))[0]
            assert isinstance(outcome, asyncio.CancelledError), f"a message is not as the document says: {outcome!r}"


async def test_every_message_matches_its_schema_on_the_wire(tmp_path: Path) -> None:
    """A device lives and is reset; each message of the document is sent, and each one that is sent is in it.

    The document's own examples are published as well: the gateway takes what the document says that it takes.
    """
    async with running_site(tmp_path, "mosquitto") as site, listening(site) as listener:
        made = await run(
            script("gateway"), "accounts", "create", "integrator_ward", "--data-dir", str(site.gateway.data)
        )
        assert made.code == 0, made.err
        device = site.device()
        device_id = (await device.provision(end_user_id="eu_1")).device_id
        async with running(device):
            await listener.hears("deviceStatus", b"online")
            await listener.hears("heartbeat")
            await site.post(f"{device_id}/commands", {"type": "reboot"}, status=201)
            await site.becomes(device_id, "executed")
            await site.reset(device_id)
            await site.becomes(device_id, "executed")
            await listener.hears("event", b"reset.completed")
        bound = await site.post(f"{device_id}/bind", {"end_user_id": "eu_2"})
        await site.synced()
        topics = bound["mqtt"]["topics"]
        example = json.dumps(MESSAGES["heartbeat"]["examples"][0]["payload"]).encode()
        await site.publish(topics["heartbeat"], example)
        await listener.hears("state", b'"eu_2"')
        await listener.hears("state", b'"signal_strength_dbm":-61')
        await site.publish(
            topics["commands"]["reboot"] + "/ack",
            json.dumps(MESSAGES["acknowledgement"]["examples"][0]["payload"]).encode(),
        )
        await listener.hears("refusal", b"unknown_command")
        await site.http.delete(f"/v1/devices/{device_id}")
        await eventually(lambda: listener.heard["state"][-1].payload == b"", "the state is cleared")
        await listener.hears("event", b"device.deleted")
        await listener.hears("gatewayStatus", b"online")
        assert set(listener.heard) == set(MESSAGES)
        for operation in OPERATIONS.values():
            name, binding = operation["channel"]["$ref"].rpartition("/")[2], operation["bindings"]["mqtt"]
            assert {message.qos for message in listener.heard[name]} == {binding["qos"]}, name
