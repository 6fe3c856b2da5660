"""Access rules of the broker (contract, section 3), as pure decisions that need no awaiting.

What is not granted here is refused, and so is every role and action that this file does not know.
"""

import enum
import re
from collections.abc import Mapping
from typing import Final

from gateway.core import ids
from gateway.core.command_types import CommandType


class Role(enum.StrEnum):
    """The kind of account that has connected."""

    GATEWAY = "gateway"
    DEVICE = "device"
    INTEGRATOR = "integrator"
    """Reads the devices of all projects."""
    PROJECT_INTEGRATOR = "project_integrator"
    """Reads the devices of its own project."""
    HOME_ASSISTANT = "home_assistant"
    """Reads devices and their discovery messages, and writes ``homeassistant/status``."""
    DOCTOR = "doctor"
    """Reads which commands are retained, and what the made-up device of ``gateway doctor`` could send."""


class Action(enum.StrEnum):
    """An action of a client: publish, subscribe, receive a message, or leave a will."""

    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"
    RECEIVE = "receive"
    WILL = "will"


_SENDING: Final = frozenset({Action.PUBLISH, Action.WILL})
_NAME: Final = re.compile(r"[A-Za-z0-9_]{1,128}")
_MAX_TOPIC_BYTES: Final = 65_535
_LOGGED_OF_SECRETS: Final = 12

_USER: Final = "%u"
_PROJECT: Final = "%p"
_STATUS: Final = f"devices/{_USER}/status"
_ACKS: Final = tuple(f"devices/{_USER}/commands/{each}/ack" for each in CommandType)
"""Each topic by name. With a wildcard one device could leave retained messages on any number of topics."""
PROBED: Final = "dev_doctor0probe"
"""A device that does not exist. The made-up device of ``gateway doctor`` tries to reach its topics."""
MADE_UP: Final = "doctor_device"
"""The made-up device of ``gateway doctor``."""
_HERE: Final = "homeassistant/status"
_MAY_SEND: Final[Mapping[str, tuple[str, ...]]] = {
    Role.GATEWAY: ("#",),
    Role.DEVICE: (f"devices/{_USER}/heartbeat", _STATUS, *_ACKS),
    Role.HOME_ASSISTANT: (_HERE,),
    Role.DOCTOR: (f"devices/{PROBED}/#", f"devices/{MADE_UP}/errors"),
}
_MAY_READ: Final[Mapping[str, tuple[str, ...]]] = {
    Role.GATEWAY: ("#",),
    Role.DEVICE: (f"devices/{_USER}/commands/+", f"devices/{_USER}/errors"),
    Role.INTEGRATOR: ("devices/+/state", "devices/+/events/#", "gateways/#"),
    Role.PROJECT_INTEGRATOR: (
        f"projects/{_PROJECT}/devices/+/state",
        f"projects/{_PROJECT}/devices/+/events/#",
        "gateways/#",
    ),
    Role.HOME_ASSISTANT: ("devices/+/state", "gateways/#", "homeassistant/#"),
    Role.DOCTOR: ("devices/+/commands/+", f"devices/{PROBED}/#", "gateways/#"),
}
_MAY_RETAIN: Final[Mapping[str, tuple[str, ...]]] = {
    Role.GATEWAY: ("#",),
    Role.DEVICE: (_STATUS,),
    Role.HOME_ASSISTANT: (_HERE,),
    Role.DOCTOR: (f"devices/{PROBED}/#",),
}


def may(
    role: str, username: str, action: str, topic_or_filter: str, *, prefix: str = "", project: str | None = None
) -> bool:
    """Return whether `username`, being a `Role`, may take an `Action` on a topic (for SUBSCRIBE: on a topic filter).

    `project` is the project of an account. An account without one reads no topic of a project.

    A subscription is granted when everything that its filter can match is granted. Topics that start with `$` (`$SYS`,
    `$share`, `$CONTROL`) are granted to no role.
    """
    if action in _SENDING:
        return _is_topic(topic_or_filter) and _granted(_MAY_SEND, role, username, topic_or_filter, prefix)
    if action == Action.RECEIVE:
        return _is_topic(topic_or_filter) and _granted(_MAY_READ, role, username, topic_or_filter, prefix, project)
    if action == Action.SUBSCRIBE:
        return _is_filter(topic_or_filter) and _granted(_MAY_READ, role, username, topic_or_filter, prefix, project)
    return False


def may_retain(role: str, username: str, topic: str, *, prefix: str = "") -> bool:
    """Return whether what `username` publishes on `topic` may be retained: for a device its own status alone."""
    return _is_topic(topic) and _granted(_MAY_RETAIN, role, username, topic, prefix)


def is_name(username: str) -> bool:
    """Return whether a user name can stand in a topic. A `+`, `#` or `/` in it would open the topics of others."""
    return _NAME.fullmatch(username) is not None


def loggable(username: str) -> str:
    """Return the part of a name that may be logged. The name may be a misplaced password (contract, section 1)."""
    return username if ids.is_id(ids.DEVICE, username) else username[:_LOGGED_OF_SECRETS]


def _granted(
    rights: Mapping[str, tuple[str, ...]],
    role: str,
    username: str,
    topic: str,
    prefix: str,
    project: str | None = None,
) -> bool:
    if not is_name(username) or not topic.startswith(prefix):
        return False
    if role == Role.PROJECT_INTEGRATOR and (project is None or not is_name(project)):
        return False
    levels = topic.removeprefix(prefix).split("/")
    names = {_USER: username, _PROJECT: project or ""}
    return any(_covers(_filled(pattern, names), levels) for pattern in rights.get(role, ()))


def _filled(pattern: str, names: Mapping[str, str]) -> list[str]:
    """Return the levels of a pattern, with names in place of its placeholders."""
    return [names.get(level, level) for level in pattern.split("/")]


def _covers(pattern: list[str], levels: list[str]) -> bool:
    """Return whether `pattern` matches each topic that `levels` (a topic's, or a filter's) can match [MQTT 4.7.1]."""
    for wanted, level in zip(pattern, levels, strict=False):
        if wanted == "#":
            return True
        if level == "#" or wanted not in ("+", level):
            return False
    return len(pattern) == len(levels)


def _is_topic(topic: str) -> bool:
    return _is_text(topic) and "+" not in topic and "#" not in topic


def _is_filter(topic_filter: str) -> bool:
    *parents, last = topic_filter.split("/")
    whole = all(level == "+" or not set("+#") & set(level) for level in parents)
    return _is_text(topic_filter) and whole and (last in ("+", "#") or not set("+#") & set(last))


def _is_text(text: str) -> bool:
    """Return whether the text may be a topic: not empty, not `$…`, valid [MQTT-1.5.3-2], not too long."""
    if not text or text.startswith("$") or "\0" in text:
        return False
    return len(text.encode(errors="replace")) <= _MAX_TOPIC_BYTES
