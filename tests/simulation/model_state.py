"""Bookkeeping beside the code under test: what was promised, what was said, what was done, and what must follow.

Whatever contradicts an invariant of docs/simulation.md is a :class:`Violation`; the first one ends the run.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from gateway.store import Row

RESET = "factory_reset"
OPEN = ("pending", "delivered")
FINAL = ("executed", "failed", "expired", "cancelled")

_STATUS_OF = {
    "reset.requested": "pending",
    "command.created": "pending",
    "reset.delivered": "delivered",
    "command.delivered": "delivered",
    "reset.completed": "executed",
    "command.executed": "executed",
    "reset.failed": "failed",
    "command.failed": "failed",
    "command.expired": "expired",
    "command.cancelled": "cancelled",
    "reset.superseded": "cancelled",
}
_SUBJECT_OF = {
    "device.registered": ("device", "registered"),
    "device.bound": ("binding", "bound"),
    "device.unbound": ("binding", "unbound"),
    "device.deleted": ("deletion", "deleted"),
    "device.restored": ("deletion", "restored"),
    "device.online": ("presence", "online"),
    "device.offline": ("presence", "offline"),
}
_TOKEN_TOLD_BY = {
    "active": {"device.bound", "token.refreshed"},
    "reset_only": {"reset.requested", "token.refreshed"},
    "revoked": {"token.revoked"},
}
_MAY_FOLLOW: dict[str | None, set[str]] = {
    None: {"pending"},
    "pending": {"delivered", *FINAL},
    "delivered": set(FINAL),
    **{status: set() for status in FINAL},
}
_TOKEN_MAY_FOLLOW: dict[str | None, set[str]] = {
    None: {"active", "reset_only"},
    "active": {"reset_only", "revoked"},
    "reset_only": {"revoked"},
    "revoked": set(),
}


@dataclass(frozen=True)
class Violation:
    """Which invariant does not hold (1 to 11 as in docs/simulation.md, 0: an unforeseen error), and how."""

    invariant: int
    law: str
    detail: str

    def __str__(self) -> str:
        return f"invariant {self.invariant}, {self.law}: {self.detail}"


class ViolationError(BaseException):
    """Ends the run; nothing may swallow it."""

    def __init__(self, violation: Violation) -> None:
        super().__init__(str(violation))
        self.violation = violation


@dataclass
class Reset:
    """A reset as it was committed: ``opened`` and ``closed`` count commits."""

    command_id: str
    device_pk: int
    opened: int
    is_fetchable: bool
    closed: int | None = None


@dataclass
class ModelState:
    """Model of what must hold. It gets each commit by its ledger, and what devices and operators really did."""

    violations: list[Violation] = field(default_factory=list)
    foreign_devices: set[int] = field(default_factory=set)
    commits: int = 0
    has_one_writer: bool = True
    resets: dict[str, Reset] = field(default_factory=dict)
    accepted_resets: set[str] = field(default_factory=set)
    wiped: dict[str, str] = field(default_factory=dict)
    effects: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    reported: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    cancelled_devices: set[int] = field(default_factory=set)
    token_states: dict[int, str] = field(default_factory=dict)
    tokens_of: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    revoked_at: dict[int, float] = field(default_factory=dict)
    token_changes: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    lost_commands: set[str] = field(default_factory=set)
    """Commands that a restore has forgotten."""
    tokens_before: set[str] = field(default_factory=set)
    """Device tokens that were answered before the last restore."""
    epoch_base: int = 0
    """The generation that the last restore began with."""
    _last_event: str = ""
    _last_executed: dict[tuple[str, str], str] = field(default_factory=dict)

    def violate(self, invariant: int, law: str, detail: str) -> None:
        """Note it; the run ends with the first."""
        self.violations.append(Violation(invariant, law, detail))

    # --- a restore ----------------------------------------------------------------------------------------------------

    def restore_copy(self, view: sqlite3.Connection, epoch_base: int, tokens_before: set[str]) -> None:
        """An old copy is the registry from now on: forget with it what it does not know."""
        self.epoch_base, self.tokens_before = epoch_base, tokens_before
        statuses = dict(view.execute("SELECT id, status FROM commands").fetchall())
        self.lost_commands |= {each for each in (*self.resets, *self.effects, *self.reported) if each not in statuses}
        self.accepted_resets &= statuses.keys()
        self.resets = {each: reset for each, reset in self.resets.items() if each in statuses}
        for command_id, reset in self.resets.items():
            if statuses[command_id] in OPEN:
                reset.closed = None
        self._reload_tokens(view)
        self._last_event = view.execute("SELECT coalesce(max(id), '') FROM events").fetchone()[0]

    def _reload_tokens(self, view: sqlite3.Connection) -> None:
        rows = view.execute("SELECT id, device_pk, state FROM tokens").fetchall()
        self.token_states = {row["id"]: row["state"] for row in rows}
        revoked = {row["id"] for row in rows if row["state"] == "revoked"}
        self.revoked_at = {each: at for each, at in self.revoked_at.items() if each in revoked}
        self.tokens_of = defaultdict(set)
        for row in rows:
            self.tokens_of[row["device_pk"]].add(row["id"])

    def check_lost_command(self, device_id: str, command_id: str, token: str) -> None:
        """A device does what was asked before a restore: that needs a binding from before it."""
        if token not in self.tokens_before:
            detail = f"{device_id}, bound after it, obeys {command_id}"
            self.violate(2, "a command from before a restore is not obeyed under a later binding", detail)

    # --- what is committed --------------------------------------------------------------------------------------------

    def check_commit(self, view: sqlite3.Connection, ledger: list[Row], now: float) -> None:
        """Judge one commit by what SQLite says has changed."""
        self.commits += 1
        if not ledger:
            return
        by_device: dict[int, list[Row]] = defaultdict(list)
        for row in ledger:
            if row["device_pk"] is not None:  # an erasure's event is about no device
                by_device[row["device_pk"]].append(row)
        if self.has_one_writer:
            self._check_event_order(ledger)
        for device_pk, rows in by_device.items():
            if device_pk in self.foreign_devices:
                self.violate(5, "no row of another project is changed", f"{[tuple(row) for row in rows]}")
            self._check_changes_match_events(device_pk, rows)
            kinds = {row["old"] for row in rows if row["what"] == "event"}
            for row in rows:
                self._check_transition(row, kinds, now)
            self._check_registry_laws(view, device_pk)

    def _check_event_order(self, ledger: list[Row]) -> None:
        for row in ledger:
            if row["what"] == "event":
                if row["id"] <= self._last_event:
                    self.violate(6, "events are in order", f"{row['id']} does not sort after {self._last_event}")
                self._last_event = row["id"]

    def _check_changes_match_events(self, device_pk: int, rows: list[Row]) -> None:
        """Changes of state and events of one commit tell the same, subject by subject, in the same order."""
        changed, reported, kinds = defaultdict(list), defaultdict(list), set()
        for row in rows:
            if row["what"] == "event":
                kinds.add(row["old"])
                fact = _expected_change(row["old"], json.loads(row["new"]))
                if fact is not None:
                    reported[fact[0]].append(fact[1])
            elif row["what"] == "command":
                changed["command", row["id"]].append(row["new"])
            elif row["what"] not in ("token", "generation", "certificate"):
                changed[row["what"], None].append(row["new"])
        for subject in changed.keys() | reported.keys():
            if changed[subject] != reported[subject]:
                detail = f"{subject} became {changed[subject]}, and the events say {reported[subject]}"
                self.violate(6, "every change of state has its event", f"device {device_pk}: {detail}")
        for row in rows:
            if row["what"] == "token" and not _TOKEN_TOLD_BY[row["new"]] & kinds:
                detail = f"a token of device {device_pk} became {row['new']}, and no event says so"
                self.violate(6, "every change of state has its event", detail)

    def _check_transition(self, row: Row, kinds: set[str], now: float) -> None:
        if row["what"] == "command":
            self._command(row, kinds)
        elif row["what"] == "token":
            self._token(row, now)
        elif row["what"] == "generation" and row["new"] != row["old"] + 1:
            self.violate(2, "the generation rises by one", f"device {row['device_pk']}: {row['old']} → {row['new']}")

    def _command(self, row: Row, kinds: set[str]) -> None:
        if row["new"] not in _MAY_FOLLOW[row["old"]]:
            self.violate(6, "a final command stays", f"{row['id']}: {row['old']} → {row['new']}")
        taken_back = row["id"] in self.resets and (row["old"], row["new"]) == ("delivered", "cancelled")
        if taken_back and "reset.superseded" not in kinds:
            self.violate(1, "a reset that was delivered is not cancelled", row["id"])
        if row["kind"] == RESET:
            is_fetchable = bool(self.live_tokens(row["device_pk"]))
            self.resets[row["id"]] = Reset(row["id"], row["device_pk"], self.commits, is_fetchable)
        self._check_status_reason(row["id"], row["new"])

    def _check_status_reason(self, command_id: str, status: str) -> None:
        """A status says what the device has said, and an executed reset that it was wiped."""
        reported = self.reported[command_id]
        unsaid = status in ("executed", "failed") and status not in reported
        if unsaid or (status == "delivered" and not reported):
            self.violate(
                1,
                "a status matches the device's acknowledgement",
                f"{command_id} is {status}; the device said {reported or '∅'}",
            )
        if status == "executed" and command_id in self.resets and command_id not in self.wiped:
            self.violate(1, "executed means wiped", f"{command_id} is executed, and no device was wiped for it")
        reset = self.resets.get(command_id)
        if reset is None or status in OPEN:
            return
        reset.closed = self.commits
        if status == "expired" or (status == "cancelled" and reset.device_pk not in self.cancelled_devices):
            self.violate(1, "an accepted reset is not lost", f"{command_id} became {status}, and nobody asked for that")

    def _token(self, row: Row, now: float) -> None:
        if row["new"] not in _TOKEN_MAY_FOLLOW[row["old"]]:
            self.violate(5, "the rights of a token only shrink", f"token {row['id']}: {row['old']} → {row['new']}")
        self.token_states[row["id"]] = row["new"]
        self.tokens_of[row["device_pk"]].add(row["id"])
        if row["new"] == "revoked":
            self.revoked_at[row["id"]] = now
        self.token_changes[row["device_pk"]].append(self.commits)

    def live_tokens(self, device_pk: int) -> set[str]:
        """The states of the device's tokens that open something."""
        return {self.token_states[each] for each in self.tokens_of[device_pk]} - {"revoked"}

    # --- what must hold after a commit (contract, sections 1 and 4) ---------------------------------------------------

    def _check_registry_laws(self, view: sqlite3.Connection, device_pk: int) -> None:
        device = view.execute("SELECT * FROM devices WHERE pk = ?", (device_pk,)).fetchone()
        live = view.execute("SELECT * FROM tokens WHERE device_pk = ? AND state <> 'revoked'", (device_pk,)).fetchall()
        commands = view.execute("SELECT * FROM commands WHERE device_pk = ? ORDER BY id", (device_pk,)).fetchall()
        states = {row["state"] for row in live}
        resets = [row for row in commands if row["type"] == RESET]
        broken = _broken_laws(device, live, states, commands, resets, self.epoch_base)
        for law, detail in broken:
            self.violate(5, law, f"{device['id']}: {detail}")
        for row in resets:
            known = self.resets[row["id"]]
            if row["status"] in OPEN and known.is_fetchable and "reset_only" not in states:
                self.violate(1, "an accepted reset can be fetched", f"{row['id']} is open, and its token opens nothing")

    # --- what devices and operators do --------------------------------------------------------------------------------

    def record_wipe(self, device_id: str, command: Row | None, command_id: str, token: str, generation: int) -> None:
        """A device writes "reset in progress": from here on it is wiped."""
        if command is None or command["type"] != RESET or command["device_id"] != device_id:
            self.violate(3, "nothing is done that was not committed", f"{device_id} wipes itself for {command_id}")
            return
        if command["binding_generation"] != generation:
            detail = f"{device_id} holds {generation}, {command_id} is for {command['binding_generation']}"
            self.violate(2, "a device of another generation is never wiped", detail)
        if self.wiped.setdefault(command_id, token) != token or self.effects[command_id]:
            self.violate(2, "a device is wiped at most once per reset", f"{device_id} for {command_id}")
        self.effects[command_id] += 1

    def record_execution(self, device_id: str, command: Row, params: dict[str, Any] | None) -> None:
        """A device acts on a command: by the params that the gateway sent, and on none that is older than its last.

        Ids rise with the commits. What a restore has forgotten does not count: it is not known when that was asked for.
        """
        if params is not None and params != json.loads(command["params"]):
            detail = f"{device_id} does {command['id']} with {params}"
            self.violate(2, "only params that the gateway signed are obeyed", detail)
        kind = (device_id, command["type"])
        last = self._last_executed.get(kind, "")
        if last > command["id"] and last not in self.lost_commands:
            detail = f"{device_id} does {command['id']} after {last}"
            self.violate(2, "no command is obeyed after a later one of its type", detail)
        self._last_executed[kind] = command["id"]

    def record_effect(self, device_id: str, command_id: str) -> None:
        """A device has the effect of another command behind it."""
        self.effects[command_id] += 1
        if self.effects[command_id] > 1:
            self.violate(2, "a command has its effect at most once", f"{command_id} on {device_id}")

    def record_answered_reset(self, device_pk: int, since: int) -> None:
        """A reset that was asked for at commit ``since`` was answered 200."""
        for reset in self.resets.values():
            if reset.device_pk == device_pk and (reset.closed is None or reset.closed > since):
                self.accepted_resets.add(reset.command_id)
                return
        self.violate(1, "an accepted reset is not lost", f"device {device_pk}: answered 200, and none was queued")


def _expected_change(kind: str, data: dict[str, Any]) -> tuple[tuple[str, str | None], str] | None:
    if kind in _STATUS_OF:
        return ("command", data["command_id"]), _STATUS_OF[kind]
    subject = _SUBJECT_OF.get(kind)
    return None if subject is None else ((subject[0], None), subject[1])


def _broken_laws(
    device: Row, live: list[Row], states: set[str], commands: list[Row], resets: list[Row], epoch_base: int
) -> list[tuple[str, str]]:
    """What a device's rows must not say."""
    bound, open_now = device["bound_at"] is not None, [row for row in commands if row["status"] in OPEN]
    reset_is_on = bool(resets) and resets[-1]["status"] in (*OPEN, "failed")
    generations = {row["generation"] for row in live}
    from_before = device["binding_generation"] == epoch_base > max(generations, default=epoch_base)
    judged = (
        (bound and states != {"active"}, "a bound device has an active token", f"bound, tokens {states or '∅'}"),
        (
            bound and generations != {device["binding_generation"]} and not from_before,
            "tokens are of the binding",
            f"{generations}",
        ),
        (len(live) > 2, "two tokens are good at most", f"{len(live)} are"),
        (not bound and "active" in states, "an active token needs a binding", "unbound, and a token is active"),
        (not bound and bool(states) and not reset_is_on, "reset_only needs its reset", f"tokens {states}"),
        (device["deleted_at"] is not None and bool(bound or states or open_now), "deleted opens nothing", "it does"),
        (not bound and any(row["type"] != RESET for row in open_now), "commands need a binding", "one is open"),
        (bound and any(row["type"] == RESET for row in open_now), "a reset unbinds", "bound, and a reset is open"),
        (
            bool(live) and any(row["binding_generation"] not in generations for row in open_now),
            "a command is for the token that fetches it",
            f"tokens {generations}, commands {[row['binding_generation'] for row in open_now]}",
        ),
    )
    return [(law, detail) for broken, law, detail in judged if broken]
