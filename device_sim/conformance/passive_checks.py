"""Lines that every connection of a run shows: they are decided at the end, from the log."""

import json
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from device_sim.conformance.issuer import REQUIRED_TYPES
from device_sim.conformance.kit import Kit
from device_sim.conformance.log import Event
from device_sim.conformance.packets import LEVEL_3_1_1, Connect, Publish
from device_sim.wire import COMMAND_TYPES, mqtt_password

LONGEST_KEEPALIVE = 300
RECOMMENDED_KEEPALIVE = range(30, 61)
CLOCK_SECONDS = 300.0
"""How far `sent_at` may be from the clock of the kit."""
RANGES: Mapping[str, tuple[float, float]] = {
    "battery_percent": (0, 100),
    "storage_used_mb": (0, float("inf")),
    "storage_total_mb": (0, float("inf")),
    "signal_strength_dbm": (-200, 0),
    "pending_recordings": (0, float("inf")),
    "flags": (0, 255),
}
LENGTHS = {"firmware_version": 32, "device_name": 64}
STATES = {"idle", "recording", "syncing", "uploading", "charging", "lowBattery", "storageFull", "error"}
CONNECTIONS = {"wifi", "4g", "ble"}


def body_of(message: Publish) -> dict[str, Any]:
    """Return the JSON object of a message; empty if it is something else."""
    try:
        body = json.loads(message.payload)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def judge(kit: Kit) -> None:
    """Record a finding for each line that the connections of the run show."""
    connects = [each for each in kit.log.of("connect") if isinstance(each.data, Connect)]
    if not connects:
        return
    _connects(kit, [each.data for each in connects])
    born = sorted({each.link for each in kit.log.of("publish") if _is_birth(kit, each)})
    for link in born:
        _subscriptions(kit, link)
    if not born and any(kit.log.of("suback")):
        kit.findings.failed("C8", "no `online` after the SUBACK")
    _disconnects(kit)
    _secrets(kit)
    _topics(kit)
    _heartbeats(kit)
    _wiped_tokens(kit)


def _connects(kit: Kit, connects: list[Connect]) -> None:
    hold, count = kit.findings.hold, f"in {len(connects)} connects"
    levels = sorted({(each.protocol, each.level) for each in connects})
    hold("C5", levels == [("MQTT", LEVEL_3_1_1)], f"protocol and level {levels} {count}")
    connects = [each for each in connects if each.level == LEVEL_3_1_1]
    wills = [_fault_of_will(kit, each) for each in connects]
    hold("C5", not any(wills), next((each for each in wills if each), f"a retained `offline` at QoS 1 {count}"))
    clean = sum(each.clean_session for each in connects)
    hold("C6", clean == 0, f"clean session set {clean} times {count}")
    keepalives = sorted({each.keepalive for each in connects})
    right = all(0 < each <= LONGEST_KEEPALIVE for each in keepalives)
    note = "" if all(each in RECOMMENDED_KEEPALIVE for each in keepalives) else ", recommended are 30 to 60"
    hold("C7", right, f"keepalive {', '.join(map(str, keepalives))} s{note}")
    names = {(each.username, each.client_id) for each in connects}
    mine = (kit.issuer.device_id, kit.issuer.device_id)
    others = [f"{name}, {client}" for name, client in sorted(names - {mine}, key=str)]
    hold("C2", not others, f"user name and client id {'; '.join(others) or 'are the device id'} {count}")


def _fault_of_will(kit: Kit, connect: Connect) -> str:
    will = connect.will
    if will is None:
        return "a CONNECT without a last will"
    if will.topic != kit.issuer.topics.of("status"):
        return f"a last will on {will.topic}"
    if body_of(Publish(will.topic, will.payload)) != {"status": "offline"}:
        return f"a last will of {will.payload!r}"
    return "" if will.retain and will.qos == 1 else f"a last will with retain {will.retain} and QoS {will.qos}"


def _is_birth(kit: Kit, event: Event) -> bool:
    message = event.data
    return bool(message.topic == kit.issuer.topics.of("status") and body_of(message).get("status") == "online")


def _subscriptions(kit: Kit, link: int) -> None:
    """Judge one connection on which the device published `online`."""
    hold, topics = kit.findings.hold, kit.issuer.topics
    wanted = {topics.command(each) for each in REQUIRED_TYPES}
    birth = next(each for each in kit.log.of("publish", link=link) if _is_birth(kit, each))
    asked = [pair for each in kit.log.of("subscribe", link=link) for pair in each.data.filters]
    before = [each for each in kit.log.of("suback", link=link) if each.at <= birth.at]
    confirmed = {name for each in before for name, _ in each.data.filters}
    covered = bool(asked) and {name for name, _ in asked} <= confirmed
    hold("C8", covered, "`online` after the SUBACK" if covered else "`online` before the SUBACK of its subscriptions")
    hold(
        "C8",
        birth.data.retain and birth.data.qos == 1,
        f"`online` with retain {birth.data.retain}, QoS {birth.data.qos}",
    )
    if not asked:
        return  # cut before it subscribed, which C8 has reported
    names = {name for name, _ in asked}
    wild = sorted(name for name in names if "#" in name or "+" in name)
    hold("C14", not wild, f"{len(wild)} wildcards {' '.join(wild)}".rstrip())
    if not wild:
        missing = wanted - names
        hold("C14", not missing, f"{len(wanted) - len(missing)} of {len(wanted)} command topics subscribed")
    qos = sorted({granted for name, granted in asked if name != topics.of("errors")})
    hold("C9", qos == [1], f"command topics with QoS {qos}")
    errors = [granted for name, granted in asked if name == topics.of("errors")]
    hold("C9", errors == [0], f"errors with QoS {errors}" if errors else "errors not subscribed")


def _disconnects(kit: Kit) -> None:
    events = list(kit.log.of("disconnect"))
    for event in events:
        confirmed = [each for each in kit.log.of("puback", link=event.link) if each.at <= event.at]
        status = [each.data for each in confirmed if each.data.topic == kit.issuer.topics.of("status")]
        said = bool(status) and body_of(status[-1]).get("status") == "offline" and status[-1].retain
        text = "a retained `offline` with its PUBACK before DISCONNECT"
        kit.findings.hold("C10", said, text if said else "a DISCONNECT without `offline` and its PUBACK before it")
    if not events:
        kit.findings.passed("C10", "no DISCONNECT was sent, so the last will was published")


def _secrets(kit: Kit) -> None:
    tokens = [each.encode() for each in kit.issuer.tokens]
    passwords = {mqtt_password(each).encode() for each in kit.issuer.tokens}
    sent = [each.data.password for each in kit.log.of("connect")]
    raw = sum(each in tokens for each in sent)
    kit.findings.hold("C11", raw == 0, f"the token itself as password in {raw} of {len(sent)} connects")
    other = sum(each not in passwords and each not in tokens for each in sent)
    kit.findings.hold("C11", other == 0, f"another password than the derived one in {other} of {len(sent)} connects")
    leaks = [each.data.topic for each in kit.log.of("publish") if any(token in each.data.payload for token in tokens)]
    kit.findings.hold("C11", not leaks, f"the token in {len(leaks)} messages")


def _topics(kit: Kit) -> None:
    topics = kit.issuer.topics
    own = {topics.of("heartbeat"), topics.of("status"), *(topics.ack(each) for each in COMMAND_TYPES)}
    others = sorted({each.data.topic for each in kit.log.of("publish")} - own)
    kit.findings.hold(
        "C2", not others, f"published on {len(others)} topics that are not its own {' '.join(others)}".rstrip()
    )
    for event in kit.log.of("violation"):
        kit.findings.failed("C5", f"bytes that are not MQTT 3.1.1: {event.data}")


def _heartbeats(kit: Kit) -> None:
    beats = [each.data for each in kit.log.of("publish") if each.data.topic == kit.issuer.topics.of("heartbeat")]
    faults = [fault for each in beats for fault in _faults_of_heartbeat(each)]
    if beats:
        kit.findings.hold("C18", not faults, faults[0] if faults else f"{len(beats)} valid heartbeats")


def _faults_of_heartbeat(message: Publish) -> Iterator[str]:
    body = body_of(message)
    if not body:
        yield "a heartbeat that is no JSON object"
    if message.retain or message.qos != 1:
        yield f"a heartbeat with retain {message.retain} and QoS {message.qos}"
    for name, (least, most) in RANGES.items():
        value = body.get(name)
        if value is not None and not (_is_number(value) and least <= value <= most):
            yield f"a heartbeat with {name} {value!r}"
    for name, longest in LENGTHS.items():
        if name in body and not (isinstance(body[name], str) and len(body[name]) <= longest):
            yield f"a heartbeat with {name} {body[name]!r}"
    if str(body.get("device_state", "idle")) not in STATES:
        yield f"a heartbeat with device_state {body['device_state']!r}"
    links = body.get("connection_type", [])
    if not isinstance(links, list) or not all(str(each) in CONNECTIONS for each in links):
        yield f"a heartbeat with connection_type {links!r}"
    if "sent_at" in body and not _is_now(body["sent_at"]):
        yield f"a heartbeat with sent_at {body['sent_at']!r}, which is not the time of this machine"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_now(text: object) -> bool:
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return False
    return moment.tzinfo is not None and abs(moment.timestamp() - time.time()) < CLOCK_SECONDS


def _wiped_tokens(kit: Kit) -> None:
    for _, reset, token in kit.resets:
        executed = next((ack for ack in kit.acks(reset) if ack.status == "executed"), None)
        if executed is None:
            continue
        password = mqtt_password(token).encode()
        again = [
            each for each in kit.log.of("connect") if each.data.password == password and each.at > executed.event.at
        ]
        kit.findings.hold("C33", not again, f"{len(again)} connects with the wiped token after executed")
