"""The same events into the simulated device and into the firmware: the same actions, states and flash."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.device_sim.support import DEVICE_ID, NOW, Signer
from tests.firmware.bench import Board, board
from tests.firmware.twin import Twin, comparable

SEQUENCES, EVENTS = 45, 24
GROUPS = range(5)
PARAMS: list[dict[str, Any]] = [{}, {"n": 1, "ü": ["x", None]}]
OPENINGS = ("refused", "new key", "no key", "overtaken", "withdrawn", "postponed", "acknowledgement lost", "resumed")
RESET = "factory_reset"
BROKER = {"host": "127.0.0.1", "port": 1883, "tls": False, "topic_prefix": "p/"}
HOME = {"ssid": "home", "psk": "secret"}
FACTORY = {"serial_number": "SN1", "firmware_version": "1.4.2", "cellular_apn": None}
TYPES = (
    "factory_reset",
    "factory_reset",
    "start_recording",
    "stop_recording",
    "trigger_upload",
    "reboot",
    "dance",
    "set_grant_key",
)


class Story:
    """Chooses what happens next, from a seed and from what the device has published."""

    def __init__(self, seed: str) -> None:
        self._rng = random.Random(seed)  # noqa: S311  # a test has to be repeatable
        self._keys = [Signer()]
        self._generation = self._rng.randrange(1, 4)
        self._commands: list[list[Any]] = []
        self._unanswered: list[int] = []
        self._seen = 0
        self.now = NOW

    def events(self, twin: Twin) -> Iterator[tuple[list[Any], int | None]]:
        """Yield events, each with the action before which the power goes; look at the twin in between."""
        yield self._bind(), None
        yield self._link_up(), None
        yield from self._opening(twin)
        for _ in range(EVENTS):
            self._look_at(twin)
            self.now += self._rng.choice([0, 1, 500, 60_000, -90_000])
            in_reset = bool(self._unanswered) and twin.sent[self._unanswered[-1]][4] == RESET
            chosen = self._in_reset() if in_reset and self._rng.random() < 0.7 else self._choose()
            cut = self._rng.randrange(8) if self._rng.random() < (0.3 if in_reset else 0.1) else None
            if cut is not None:
                self._unanswered.clear()
            yield chosen, cut

    def _opening(self, twin: Twin) -> Iterator[tuple[list[Any], int | None]]:
        """What chance alone brings too rarely, by good commands: one of these ways to begin."""
        opening, old = self._rng.choice(OPENINGS), self._keys[-1]
        if opening == "refused":
            yield from (
                (event, None) for event in (self._link_down(), self._refused(), ["token_refreshed", "dtok_1", BROKER])
            )
            return
        if opening == "no key":
            yield self._sign("set_grant_key", by=old, params={"kty": "RSA"}), None
            return
        first = self._sign({"new key": "set_grant_key", "overtaken": "trigger_upload"}.get(opening, RESET), by=old)
        if opening == "overtaken":
            yield self._sign("trigger_upload", by=old), None
        yield first, None
        last = len(twin.sent) - 1
        if opening == "new key":
            yield self._sign("reboot", by=self._keys[-1]), None
        elif opening == "withdrawn":
            yield ["command", RESET, ""], None
        elif opening == "postponed":
            yield ["publish_failed", last, "cut"], None
        elif opening == "acknowledgement lost":
            yield ["published", last], None
            yield ["publish_failed", last + 1, "cut"], None
        elif opening == "resumed":
            yield ["published", last], self._rng.randrange(1, 7)

    def _in_reset(self) -> list[Any]:
        """What happens right after an acknowledgement of a reset: mostly its confirmation."""
        last = self._unanswered[-1]
        choices = [["published", last]] * 4 + [["publish_failed", last, "cut"]] * 3
        return self._rng.choice([*choices, ["command", RESET, ""], self._commands[-1]])

    def _look_at(self, twin: Twin) -> None:
        self._unanswered += range(self._seen, len(twin.sent))
        self._seen = len(twin.sent)

    def _choose(self) -> list[Any]:
        if self._unanswered and self._rng.random() < 0.5:  # as often as anything else
            return self._answer()
        choices: list[Callable[[], list[Any]]] = [self._command] * 4 + [self._again] * 3 + [self._link_up] * 3
        choices += [self._bind, self._link_down, self._refused, self._errors, self._refreshed, self._cleared]
        choices += [lambda: ["heartbeat_due"]] * 3
        return self._rng.choice(choices)()

    def _answer(self) -> list[Any]:
        at = 0 if self._rng.random() < 0.8 else -1  # mostly in order
        number = self._unanswered.pop(at)
        return ["publish_failed", number, "cut"] if self._rng.random() < 0.15 else ["published", number]

    def _bind(self) -> list[Any]:
        self._generation += self._rng.randrange(2)
        answer = {
            "id": DEVICE_ID,
            "binding_generation": self._generation,
            "device_token": f"dtok_{self._rng.getrandbits(64):016x}",
            "grant_key": self._keys[-1].jwk,
            "mqtt": {
                "host": BROKER["host"],
                "port": BROKER["port"],
                "topics": {"heartbeat": f"p/devices/{DEVICE_ID}/heartbeat"},
            },
            "end_user_id": "eu_1",
        }
        return ["provisioned", answer, self._rng.choice([[], [HOME]])]

    def _command(self) -> list[Any]:
        """A new command; one in three overtakes another one of its type, which may arrive later."""
        kind = self._rng.choice(TYPES)
        for _ in range(self._rng.choice([0, 0, 1])):
            self._sign(kind)
        return self._sign(kind)

    def _sign(self, kind: str, by: Signer | None = None, params: dict[str, Any] | None = None) -> list[Any]:
        """Sign a command; without a key that is named, with one of the newest two, and often with a fault."""
        number, is_good = len(self._commands), by is not None
        good: dict[str, Any] = {}
        claims = good if is_good else self._rng.choice([good] * 8 + [{"aud": "dev_other"}, {"par": "x"}, {"exp": 1}])
        wrong_fields: list[dict[str, Any]] = [{"params": {"a": [1.0]}}, {"type": "reboot"}, {"id": 7}]
        fields = good if is_good else self._rng.choice([good] * 8 + wrong_fields)
        if params is None:
            params = self._new_key(is_good=is_good) if kind == "set_grant_key" else self._rng.choice(PARAMS)
        never = kind in {RESET, "set_grant_key"}
        payload = (by or self._rng.choice(self._keys[-2:])).command(
            kind,
            command_id=f"cmd_{number}",
            generation=self._generation + (0 if is_good else self._rng.choice([0] * 8 + [-1, 1])),
            expires_at=None if never else self.now + (60_000 if is_good else self._rng.choice([60_000] * 3 + [0])),
            params=params,
            claims={"seq": number + 1, **claims},
            fields=fields,
        )
        self._commands.append(["command", kind, payload.decode()])
        return self._commands[-1]

    def _new_key(self, *, is_good: bool) -> dict[str, Any]:
        """The next key of the gateway, or one that it has already; now and then what is no key."""
        if is_good or self._rng.random() < 0.7:
            number = len(self._keys)
            self._keys.append(Signer(bytes([number]) * 32, f"k{number}"))
        spoilt = {} if is_good else self._rng.choice([{}, {"kty": "RSA"}, {"x": "AA"}])
        return {**self._keys[-1].jwk, **spoilt}

    def _again(self) -> list[Any]:
        """One of the last commands again, now and then on the topic of another type."""
        if not self._commands:
            return ["heartbeat_due"]
        command = list(self._rng.choice(self._commands[-4:]))
        if self._rng.random() < 0.1:  # rarely
            command[1] = self._rng.choice(TYPES)
        return command

    def _cleared(self) -> list[Any]:
        return ["command", self._rng.choice(TYPES), ""]

    def _link_up(self) -> list[Any]:
        return ["link_up", *self._rng.choice([("wifi", "mqtt"), ("4g", "mqtt"), ("wifi", "http")])]

    def _link_down(self) -> list[Any]:
        self._unanswered.clear()
        return ["link_down", "cut"]

    def _refused(self) -> list[Any]:
        return ["link_refused", 3, "not authorised"]

    def _errors(self) -> list[Any]:
        field = self._rng.choice(["last_command.receipt", "sent_at", None, 7])
        return ["errors", self._rng.choice([json.dumps({"code": "c", "field": field}), "{", "[]"])]

    def _refreshed(self) -> list[Any]:
        token = f"dtok_{self._rng.getrandbits(64):016x}"
        broker = self._rng.choice([BROKER, {**BROKER, "host": "b.example", "port": 8883, "tls": True}])
        return self._rng.choice(
            [["token_refreshed", token, broker], ["refresh_failed", "429", False], ["refresh_failed", "401", True]]
        )


def tell_both(seed: str, device: Board) -> list[str]:
    """Give one story to both devices, compare after each event; return the facts and codes that were told."""
    story, twin, facts = Story(seed), Twin(), []
    kept = {**FACTORY, "cellular_apn": "iot.example"} if seed.endswith("7") else FACTORY
    assert comparable(device.start({}, kept)) == comparable(twin.start({}, kept))
    for event, cut in story.events(twin):
        expected = comparable(twin.give(event, story.now, cut))
        happened = f"seed {seed}, {event[:2]}, cut {cut}"
        assert comparable(device.give(event, story.now, cut)) == expected, happened
        assert device.state == twin.state, happened
        assert device.flash() == twin.flash(), happened
        facts += [action[2].get("code", action[1]) for action in expected if action[0] == "tell"]
    return facts


@pytest.mark.parametrize("group", GROUPS)
def test_both_devices_act_the_same_in_random_runs(group: int, tmp_path: Path) -> None:
    """Stories of chance, with power cuts; together they reach every fact and every code."""
    told: set[str] = set()
    with board(tmp_path) as device:
        for number in range(SEQUENCES):
            told.update(tell_both(f"{group}-{number}", device))
    assert told >= FACTS, f"group {group}"


def test_both_devices_forget_the_same_commands(tmp_path: Path) -> None:
    """More commands than a device remembers, then all of them again: the last of each type is never forgotten."""
    signer, twin = Signer(), Twin()
    types = ["start_recording", "stop_recording", *["trigger_upload"] * 19]
    commands = [
        ["command", kind, signer.command(kind, command_id=f"cmd_{at}", expires_at=NOW + 60_000).decode()]
        for at, kind in enumerate(types)
    ]
    bind = {
        "id": DEVICE_ID,
        "binding_generation": 3,
        "device_token": "dtok_1",
        "grant_key": signer.jwk,
        "mqtt": {"host": "h", "port": 1883, "topics": {"heartbeat": f"devices/{DEVICE_ID}/heartbeat"}},
    }
    with board(tmp_path) as device:
        device.start({}, FACTORY)
        twin.start({}, FACTORY)
        for event in [["provisioned", bind, []], ["link_up", "4g", "mqtt"], *commands, *commands]:
            assert comparable(device.give(event, NOW)) == comparable(twin.give(event, NOW))
        assert device.flash() == twin.flash()


FACTS = {
    "powered_on",
    "provisioned",
    "provisioning_refused",
    "online",
    "offline",
    "refused",
    "message_refused",
    "token_refreshed",
    "token_not_refreshed",
    "command_ignored",
    "command_received",
    "grant_invalid",
    "stale_generation",
    "generation_mismatch",
    "unknown_command",
    "stale_sequence",
    "expired",
    "invalid_grant_key",
    "grant_key_added",
    "grant_key_dropped",
    "already_done",
    "reset_withdrawn",
    "reset_postponed",
    "acknowledgement_lost",
    "wipe_resumed",
}
