"""Who may do what on the broker (contract, section 3), against the same rules written a second time as expressions."""

import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gateway.broker.access_rules import Action, Role, may, may_retain

ONE_LEVEL = r"[^/+#\x00]*"
TYPES = "factory_reset|start_recording|stop_recording|trigger_upload|reboot|set_grant_key"
DEVICE_MAY = {
    Action.PUBLISH: rf"devices/dev_A/(heartbeat|status|commands/({TYPES})/ack)",
    Action.WILL: rf"devices/dev_A/(heartbeat|status|commands/({TYPES})/ack)",
    Action.SUBSCRIBE: rf"devices/dev_A/(errors|commands/({ONE_LEVEL}|\+))",
    Action.RECEIVE: rf"devices/dev_A/(errors|commands/{ONE_LEVEL})",
}
HOSTILE_LEVELS = (
    *("devices", "dev_A", "dev_B", "gateways", "gw_1", "commands", "factory_reset", "ack", "heartbeat", "status"),
    *(
        "errors",
        "state",
        "events",
        "+",
        "#",
        "",
        "$SYS",
        "$share",
        "group",
        "$CONTROL",
        "dev_A+",
        "#x",
        "\0",
        "%u",
        " ",
    ),
)
TOPICS = st.lists(st.one_of(st.sampled_from(HOSTILE_LEVELS), st.text(max_size=4)), max_size=7).map("/".join)
NEAR_TOPICS = st.lists(st.sampled_from(HOSTILE_LEVELS), max_size=4).map(
    lambda rest: "/".join(["devices", "dev_A", *rest])
)
HOSTILE_TOPICS = st.one_of(TOPICS, NEAR_TOPICS)
hostile = settings(derandomize=True, max_examples=500, deadline=None)


@hostile
@given(topic=HOSTILE_TOPICS, action=st.sampled_from(Action))
def test_a_device_has_exactly_the_contracts_rights(topic: str, action: Action) -> None:
    """Its own heartbeat, status, acknowledgements, commands and errors: no topic that can be thought up beyond."""
    expected = re.fullmatch(DEVICE_MAY[action], topic) is not None
    assert may(Role.DEVICE, "dev_A", action, topic) == expected


@hostile
@given(topic=HOSTILE_TOPICS, role=st.sampled_from(Role), action=st.sampled_from(Action))
def test_a_prefix_changes_only_the_start_of_the_topics(topic: str, role: Role, action: Action) -> None:
    """What is granted without a prefix is granted under it and nowhere else; `$` after a prefix is a level as any."""
    assume(not topic.startswith("$") and topic)
    assert may(role, "dev_A", action, f"fleet/eu/{topic}", prefix="fleet/eu/") == may(role, "dev_A", action, topic)
    assume(not topic.startswith("fleet/eu/"))
    assert not may(role, "dev_A", action, topic, prefix="fleet/eu/")


@hostile
@given(topic_filter=HOSTILE_TOPICS, topic=HOSTILE_TOPICS, role=st.sampled_from(Role))
def test_a_granted_filter_matches_only_what_may_be_received(topic_filter: str, topic: str, role: Role) -> None:
    """No subscription reaches further than the right to receive, whatever the filter."""
    if may(role, "dev_A", Action.SUBSCRIBE, topic_filter) and _matches(topic_filter, topic):
        assert may(role, "dev_A", Action.RECEIVE, topic)


@hostile
@given(topic=HOSTILE_TOPICS, role=st.sampled_from(Role), action=st.sampled_from(Action))
def test_dollar_topics_are_denied(topic: str, role: Role, action: Action) -> None:
    """`$SYS`, `$share/…`, `$CONTROL` and whatever else starts so is closed to all, the gateway included."""
    assert not may(role, "gateway", action, f"${topic}")
    assert not may_retain(role, "gateway", f"${topic}")


@hostile
@given(topic=HOSTILE_TOPICS)
def test_an_integrator_writes_nothing(topic: str) -> None:
    """Neither a publish, nor a will, nor anything retained."""
    assert not may(Role.INTEGRATOR, "integrator", Action.PUBLISH, topic)
    assert not may(Role.INTEGRATOR, "integrator", Action.WILL, topic)
    assert not may_retain(Role.INTEGRATOR, "integrator", topic)


@hostile
@given(topic=HOSTILE_TOPICS)
def test_a_device_retains_its_status_alone(topic: str) -> None:
    """A retained heartbeat or acknowledgement would outlive its reason."""
    assert may_retain(Role.DEVICE, "dev_A", topic) == (topic == "devices/dev_A/status")


@pytest.mark.parametrize(
    ("topic_filter", "granted"),
    [
        ("devices/+/state", True),
        ("devices/dev_A/state", True),
        ("devices/+/events/#", True),
        ("devices/dev_A/events/reset.completed", True),
        ("devices/+/events/+", True),
        ("gateways/#", True),
        ("gateways/gw_1/status", True),
        ("devices/#", False),
        ("devices/+/+", False),
        ("devices/+/heartbeat", False),
        ("devices/+/commands/+", False),
        ("devices/+/status", False),
        ("+/+/state", False),
        ("#", False),
        ("$SYS/#", False),
        ("$share/g/devices/+/state", False),
    ],
)
def test_an_integrator_reads_states_and_events(topic_filter: str, granted: bool) -> None:  # noqa: FBT001 - a column of the table
    """State, events and the gateways' status, by wildcard or by name, and none of the devices' own traffic."""
    assert may(Role.INTEGRATOR, "integrator", Action.SUBSCRIBE, topic_filter) == granted


@pytest.mark.parametrize("username", ["", "+", "#", "dev_A/+", "dev_A/../dev_B", "dev_A\n", "dév", "%u", "a" * 129])
def test_a_name_with_topic_characters_gets_no_rights(username: str) -> None:
    """Names that would change the meaning of a topic have no rights at all."""
    assert not may(Role.DEVICE, username, Action.PUBLISH, f"devices/{username}/heartbeat")
    assert not may(Role.DEVICE, username, Action.SUBSCRIBE, f"devices/{username}/commands/+")


@pytest.mark.parametrize("topic", ["devices/dev_A/heartbeat", "#", "gateways/gw_1/status"])
def test_an_unknown_role_gets_no_rights(topic: str) -> None:
    """An unknown role and an unknown action are refused."""
    assert not may("admin", "gateway", Action.PUBLISH, topic)
    assert not may("", "gateway", Action.SUBSCRIBE, topic)
    assert not may(Role.GATEWAY, "gateway", "administer", topic)
    assert not may_retain("admin", "gateway", topic)


def test_the_gateway_may_do_everything_under_its_prefix() -> None:
    """It writes and reads all of the contract, and wildcards too, but not beyond the prefix."""
    assert may(Role.GATEWAY, "gateway", Action.SUBSCRIBE, "#")
    assert may(Role.GATEWAY, "gateway", Action.SUBSCRIBE, "fleet/#", prefix="fleet/")
    assert may(Role.GATEWAY, "gateway", Action.PUBLISH, "fleet/devices/dev_A/commands/reboot", prefix="fleet/")
    assert may_retain(Role.GATEWAY, "gateway", "fleet/devices/dev_A/commands/reboot", prefix="fleet/")
    assert not may(Role.GATEWAY, "gateway", Action.SUBSCRIBE, "#", prefix="fleet/")
    assert not may(Role.GATEWAY, "gateway", Action.PUBLISH, "other/devices/dev_A/commands/reboot", prefix="fleet/")


def _matches(topic_filter: str, topic: str) -> bool:
    """MQTT 4.7, written as an expression."""
    if not topic or "+" in topic or "#" in topic or "\0" in topic or topic.startswith("$"):
        return False
    expression = re.escape(topic_filter).replace(r"\+", "[^/]*").replace(r"/\#", "(/.*)?").replace(r"\#", ".*")
    return re.fullmatch(expression, topic, re.DOTALL) is not None


HOME_ASSISTANT = (Role.HOME_ASSISTANT, "home_assistant")


def test_home_assistant_reads_its_topics() -> None:
    """States, the gateway's status, announcements; no commands, no events, nothing else."""
    for topic in ("devices/+/state", "gateways/+/status", "homeassistant/#", "homeassistant/+/+/config"):
        assert may(*HOME_ASSISTANT, Action.SUBSCRIBE, topic)
    for topic in ("#", "devices/#", "devices/+/commands/+", "devices/+/events/#", "+/status", "$SYS/#"):
        assert not may(*HOME_ASSISTANT, Action.SUBSCRIBE, topic)


def test_home_assistant_publishes_its_status_alone() -> None:
    """Its birth and its last will, retained or not."""
    for action in (Action.PUBLISH, Action.WILL):
        assert may(*HOME_ASSISTANT, action, "homeassistant/status")
        for topic in ("homeassistant/device/dev_A/config", "devices/dev_A/state", "devices/dev_A/commands/reboot"):
            assert not may(*HOME_ASSISTANT, action, topic)
    assert may_retain(*HOME_ASSISTANT, "homeassistant/status")
    assert not may_retain(*HOME_ASSISTANT, "homeassistant/device/dev_A/config")
