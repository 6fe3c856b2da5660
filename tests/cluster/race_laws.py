"""What the contract says of a device and its resets, whatever two gateways did to it (sections 1 and 4)."""

from __future__ import annotations

import itertools
import json
from typing import Any, Final

from gateway.core.command_types import CommandType
from gateway.store import View
from tests.cluster.races import Subject

OPEN: Final = ("pending", "delivered")
ENDS: Final = {
    "reset.completed": ("executed", "executed"),
    "reset.failed": ("failed", "failed"),
    "reset.superseded": ("cancelled", "superseded"),
    "command.cancelled": ("cancelled", "cancelled"),
}
"""Status of the command and outcome of the reset, by the event that tells the end."""
OPPOSITES: Final = {
    "device.bound": ("device.unbound",),
    "device.unbound": ("device.bound",),
    "device.deleted": ("device.restored",),
    "device.restored": ("device.deleted",),
}
"""Between two of the same type lies one of these."""

Rows = list[dict[str, Any]]


def check(view: View, subject: Subject) -> None:
    """Check a device.

    Raises:
        AssertionError: a law is broken.
    """
    (device,) = _rows(view, "SELECT * FROM devices WHERE pk = ?", subject)
    commands = _rows(view, "SELECT * FROM commands WHERE device_pk = ? ORDER BY id", subject)
    tokens = _rows(view, "SELECT * FROM tokens WHERE device_pk = ? ORDER BY id", subject)
    events = _rows(view, "SELECT type, data FROM events WHERE device_pk = ? ORDER BY seq", subject)
    _one_binding(device, tokens, _rows(view, "SELECT * FROM bindings WHERE device_pk = ?", subject))
    _tokens_follow_resets(device, tokens, commands)
    _events_are_in_order(device, events)
    for command in commands:
        if command["type"] == CommandType.FACTORY_RESET:
            _ends_once(view, command, [each["type"] for each in events if _is_about(each, command)])


def _rows(view: View, sql: str, subject: Subject) -> Rows:
    return [{name: row[name] for name in row.keys()} for row in view.all(sql, subject.pk)]  # noqa: SIM118 - a row


def _is_about(event: dict[str, Any], command: dict[str, Any]) -> bool:
    return bool(json.loads(event["data"]).get("command_id") == command["id"])


def _ends_once(view: View, command: dict[str, Any], told: list[str]) -> None:
    """With one event, one certificate, and the outcome that these tell. Nothing but a late word comes after."""
    ends = [kind for kind in told if kind in ENDS]
    outcome = view.value("SELECT outcome FROM resets WHERE command_id = ?", command["id"])
    sql = "SELECT count(*) FROM certificates WHERE command_id = ? AND kind = 'first'"
    certificates = view.value(sql, command["id"])
    if command["status"] in OPEN:
        assert (ends, outcome, certificates) == ([], None, 0), told
        return
    assert (len(ends), certificates) == (1, 1), told
    assert (command["status"], outcome) == ENDS[ends[0]], told
    assert ("reset.delivered" in told, ends[0]) != (True, "command.cancelled"), told
    after = told[told.index(ends[0]) + 1 :]
    assert set(after) <= {"token.revoked", "acknowledgement.late"}, told
    assert told[0] == "reset.requested", told


def _one_binding(device: dict[str, Any], tokens: Rows, bindings: Rows) -> None:
    """A bound device has one binding that lasts, and one good token for it. A deleted device is not bound."""
    lasting = [(each["generation"], each["end_user_id"]) for each in bindings if each["unbound_at"] is None]
    is_bound = device["bound_at"] is not None
    assert lasting == ([(device["binding_generation"], device["end_user_id"])] if is_bound else [])
    active = {each["generation"] for each in tokens if each["state"] == "active"}
    assert active == ({device["binding_generation"]} if is_bound else set()), tokens
    assert not (is_bound and device["deleted_at"] is not None)


def _tokens_follow_resets(device: dict[str, Any], tokens: Rows, commands: Rows) -> None:
    """A token is good for a reset alone while that is open, or has failed. One command of a type is open."""
    open_types = [each["type"] for each in commands if each["status"] in OPEN]
    assert len(open_types) == len(set(open_types)), commands
    resets = [each for each in commands if each["type"] == CommandType.FACTORY_RESET]
    waiting = {each["generation"] for each in tokens if each["state"] == "reset_only"}
    if waiting:
        assert resets[-1]["status"] in (*OPEN, "failed"), (tokens, commands)
        assert waiting == {resets[-1]["binding_generation"]}
    if any(each["status"] in OPEN for each in resets):
        assert device["bound_at"] is None
        assert device["deleted_at"] is None


def _events_are_in_order(device: dict[str, Any], events: Rows) -> None:
    """Generations never fall, and what is bound or deleted was not so before."""
    types = [each["type"] for each in events]
    for kind, between in OPPOSITES.items():
        places = [place for place, each in enumerate(types) if each == kind]
        for one, next_one in itertools.pairwise(places):
            assert set(types[one:next_one]) & set(between), types
    told = [json.loads(each["data"]).get("binding_generation", 0) for each in events if each["type"] in OPPOSITES]
    told = [each for each in told if each]
    assert told == sorted(set(told)), told
    assert (told or [0])[-1] <= device["binding_generation"]
