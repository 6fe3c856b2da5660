"""Scenario of ``gateway demo``: three devices are reset, each in its own way, and the end is checked from outside."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass
from typing import Any, Final

from device_sim import Fact, SimulatedDevice, SimulatorError
from gateway.demo.environment import Radio, Stage, stage
from gateway.demo.outside_checks import Outside
from gateway.demo.timeline import Timeline

RESET: Final = "factory_reset"
GIVE_UP_SECONDS: Final = 25.0
SHOWN: Final = frozenset(
    {
        "online",
        "command_received",
        "reset_begun",
        "wiped",
        "acknowledged",
        "rebooting",
        "already_done",
        "command_refused",
        "wifi_given",
    }
)


async def run(*, as_json: bool, database: str | None = None) -> int:
    """Run the scenario. Return 0 when everything was observed, else 1. SIGTERM cancels it and cleans up."""
    playing = asyncio.current_task()
    assert playing is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, playing.cancel)
    timeline = Timeline(as_json)
    give_up = GIVE_UP_SECONDS if database is None else 2 * GIVE_UP_SECONDS  # a server is set up first
    try:
        async with asyncio.timeout(give_up), stage(database=database) as scene:
            await _Story(scene, timeline).play()
    except* TimeoutError:
        timeline.check("the story ends in time", ok=False, saw=f"not over after {give_up:g} s")
    except* SimulatorError as errors:
        timeline.check("nothing fails on the way", ok=False, saw=str(errors.exceptions[0]))
    timeline.end()
    return 0 if timeline.passed else 1


@dataclass
class Actor:
    """A device of the scenario: the simulator's, its id and first credentials, and its task while it is switched on."""

    name: str
    sim: SimulatedDevice
    device_id: str = ""
    token: str = ""
    mqtt_password: str = ""
    life: asyncio.Task[None] | None = None


class _Story:
    def __init__(self, scene: Stage, timeline: Timeline) -> None:
        self._scene = scene
        self._api = scene.api
        self._tell = timeline.tell
        self._check = timeline.check
        self._chapter = timeline.chapter
        self._outside = Outside(scene.gateway.broker.upstream, scene.gateway.http.url)
        self._topics = scene.gateway.registry.topics

    async def play(self) -> None:
        wifi, cellular, ble = (self._actor(name) for name in ("wifi", "cellular", "ble"))
        async with asyncio.TaskGroup() as group:
            await self._provision(group, wifi, cellular, ble)
            await self._while_online(wifi)
            await self._while_away(group, cellular)
            await self._bluetooth_only(ble)
            await self._anew(wifi)
            for actor in (wifi, cellular, ble):
                self._switch_off(actor)

    def _actor(self, name: Radio) -> Actor:
        def on_fact(fact: Fact) -> None:
            if fact.name in SHOWN:
                self._tell(name, fact.text)

        return Actor(name, self._scene.device(f"DEMO-{name.upper()}", name, on_fact))

    def _switch_on(self, group: asyncio.TaskGroup, actor: Actor) -> None:
        actor.life = group.create_task(actor.sim.run(), name=f"life of {actor.name}")

    def _switch_off(self, actor: Actor) -> None:
        if actor.life is not None:
            actor.life.cancel()

    async def _provision(self, group: asyncio.TaskGroup, *actors: Actor) -> None:
        self._chapter("Three devices are registered, bound and alive")
        for actor in actors:
            binding = await actor.sim.provision(end_user_id=f"eu_{actor.name}")
            actor.device_id, actor.token = binding.device_id, binding.device_token
            actor.mqtt_password = binding.mqtt_password
            self._tell("gateway", f"{actor.name} is {actor.device_id}, bound to eu_{actor.name}")
            self._switch_on(group, actor)
        for actor in actors:
            await actor.sim.wait_for_fact("heartbeat")
            device = await self._device_until(actor, "battery_percent", lambda value: value is not None)
            self._check(
                f"{actor.name}: its heartbeat is stored",
                ok=device["connection"] == "online",
                saw=f"{device['connection']}, battery {device['battery_percent']} %, {device['status']}",
            )

    async def _while_online(self, actor: Actor) -> None:
        self._chapter("A device that is online is reset")
        await self._ask_for_reset(actor)
        await actor.sim.wait_for("unprovisioned")
        await self._is_over(actor)

    async def _while_away(self, group: asyncio.TaskGroup, actor: Actor) -> None:
        self._chapter("A device that is away is reset: the command waits on the broker")
        self._switch_off(actor)
        self._tell(actor.name, "switched off")
        await self._ask_for_reset(actor)
        await self._lies_retained(actor)
        use = await self._outside.token_opens(actor.token)
        handed_over = ", ".join(use.commands) or "nothing"
        self._check(
            "its token opens the way to its own reset and nothing else",
            ok=use.opens_only_its_reset,
            saw=f"heartbeat {use.heartbeat} hands over {handed_over}; another call {use.other_call}",
        )
        self._tell(actor.name, "switched on again")
        self._switch_on(group, actor)
        await actor.sim.wait_for("unprovisioned")
        await self._is_over(actor)

    async def _bluetooth_only(self, actor: Actor) -> None:
        self._chapter("A Bluetooth-only device is reset: a relay shows that it is there and never delivers")
        await self._ask_for_reset(actor)
        beats = actor.sim.counts["heartbeat"]
        await actor.sim.wait_for_fact("heartbeat", count=beats + 2)
        command = await self._command(actor)
        paired = actor.sim.binding is not None
        self._check(
            "after two relayed heartbeats it still waits",
            ok=command["status"] == "pending" and paired,
            saw=f"command {command['status']}, device {'paired' if paired else 'unpaired'}",
        )
        await self._lies_retained(actor)
        actor.sim.give_wifi("Workshop", "correct horse battery staple")
        await actor.sim.wait_for("unprovisioned")
        await self._is_over(actor)

    async def _anew(self, actor: Actor) -> None:
        self._chapter("A device that was wiped is provisioned again, and stays")
        old = await self._command(actor)
        binding = await actor.sim.provision(end_user_id="eu_next")
        self._tell("gateway", f"{actor.name} is bound to eu_next, generation {binding.generation}")
        beats = actor.sim.counts["heartbeat"]
        await actor.sim.wait_for_fact("heartbeat", count=beats + 1)
        self._tell("somebody", "replays the old reset on the broker")
        fields = ("id", "type", "params", "binding_generation", "created_at", "expires_at", "grant_token")
        await self._outside.replay(self._topics.command(actor.device_id, RESET), {name: old[name] for name in fields})
        await actor.sim.wait_for_fact("already_done")
        await actor.sim.wait_for_fact("heartbeat", count=beats + 3)
        device = await self._api.call("GET", f"/v1/devices/{actor.device_id}")
        self._check(
            "it was not wiped",
            ok=actor.sim.binding == binding and device["status"] == "bound" and device["end_user_id"] == "eu_next",
            saw=f"{device['status']} to {device['end_user_id']}, {device['connection']}, still paired",
        )

    async def _ask_for_reset(self, actor: Actor) -> None:
        self._tell("operator", f"POST /v1/devices/{actor.device_id}/reset")
        device = await self._api.call("POST", f"/v1/devices/{actor.device_id}/reset")
        self._check(
            f"{actor.name}: the reset is accepted",
            ok=device["status"] == "unbound" and device["end_user_id"] is None,
            saw=f"{device['status']}, bound to nobody, generation {device['binding_generation']}",
        )

    async def _lies_retained(self, actor: Actor) -> None:
        await self._scene.gateway.synced(actor.device_id)
        topic = self._topics.command(actor.device_id, RESET)
        lies = await self._outside.retained(topic)
        signed = bool(lies and lies["type"] == RESET and lies["grant_token"])
        self._check(f"it lies retained on {topic}", ok=signed, saw=_lying(lies))

    async def _is_over(self, actor: Actor) -> None:
        """Check the end from outside."""
        command = await self._command_until_final(actor)
        await self._scene.gateway.synced(actor.device_id)
        self._check("the command is executed", ok=command["status"] == "executed", saw=_wiped(command))
        topic = self._topics.command(actor.device_id, RESET)
        lies = await self._outside.retained(topic)
        self._check("nothing is retained any more", ok=lies is None, saw=f"{topic}: {_lying(lies)}")
        use = await self._outside.token_opens(actor.token)
        self._check(
            "the old token is refused over HTTP", ok=use.opens_nothing, saw=f"{use.heartbeat} and {use.other_call}"
        )
        refused = await self._outside.broker_refuses(actor.device_id, actor.mqtt_password)
        self._check(
            "its MQTT password is refused by the broker", ok=refused, saw="not authorised" if refused else "let in"
        )
        kept = ", ".join(sorted([*actor.sim.flash.wiped_area, *actor.sim.flash.kept_area]))
        self._check("the device is unpaired", ok=not actor.sim.flash.wiped_area, saw=f"its flash holds {kept}")

    async def _command(self, actor: Actor) -> dict[str, Any]:
        listed = await self._api.call("GET", f"/v1/devices/{actor.device_id}/commands?limit=1")
        command: dict[str, Any] = listed["data"][0]
        return command

    async def _command_until_final(self, actor: Actor) -> dict[str, Any]:
        while (command := await self._command(actor))["status"] in ("pending", "delivered"):  # noqa: ASYNC110 - an outside client has to poll
            await asyncio.sleep(0.05)
        return command

    async def _device_until(self, actor: Actor, name: str, good: Any) -> dict[str, Any]:
        while not good((device := await self._api.call("GET", f"/v1/devices/{actor.device_id}"))[name]):  # noqa: ASYNC110 - an outside client has to poll
            await asyncio.sleep(0.05)
        return device


def _wiped(command: dict[str, Any]) -> str:
    wiped = ", ".join((command["result"] or {}).get("wiped", [])) or "nothing"
    return f"{command['status']}, wiped {wiped}; the gateway found its receipt good"


def _lying(command: dict[str, Any] | None) -> str:
    """Return what is retained, in short."""
    if command is None:
        return "empty"
    return f"{command['type']} {command['id']} for generation {command['binding_generation']}, with its signed grant"
