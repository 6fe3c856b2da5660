"""Names of topics: built and taken apart, and nothing else is taken for one."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core import topics
from gateway.core.command_types import CommandType

IDS = st.from_regex(r"[A-Za-z0-9]{1,64}", fullmatch=True).map(lambda body: f"dev_{body}")
TYPES = st.sampled_from(list(CommandType)).map(str)
PREFIXES = st.sampled_from(["", "site/", "a/b/c/", "devices/", "x.y-z_1/"])


@given(PREFIXES, IDS, TYPES)
def test_built_topics_parse_to_their_parts(prefix: str, device_id: str, kind: str) -> None:
    """parse(build(x)) == x, under any prefix."""
    names = topics.Topics(prefix)
    assert names.parse(names.heartbeat(device_id)) == topics.HeartbeatTopic(device_id)
    assert names.parse(names.status(device_id)) == topics.StatusTopic(device_id)
    assert names.parse(names.ack(device_id, kind)) == topics.AckTopic(device_id, kind)
    assert names.parse(names.command(device_id, kind)) == topics.CommandTopic(device_id, kind)
    assert names.parse(names.gateway_status("gw_1")) == topics.GatewayStatusTopic("gw_1")


@given(st.text())
@example("devices//heartbeat")
@example("devices/dev_1/heartbeat\n")
@example("devices/dev_1/heartbeat/")
@example("/devices/dev_1/heartbeat")
@example("devices/dev_1/commands/+/ack")
@example("devices/dev_1/commands/#")
@example("devices/+/heartbeat")
@example("devices/dev_1\0/heartbeat")
@example("$SYS/broker/uptime")
@example("devices/dev_" + "1" * 65 + "/heartbeat")
@example("devices/" * 8000)
def test_hostile_topics_do_not_parse(text: str) -> None:
    """Never raises; whatever is taken for a topic is written again exactly as it was."""
    names = topics.Topics()
    parsed = names.parse(text)
    assert parsed is None or text in _every_name(names, parsed)


def _every_name(names: topics.Topics, parsed: topics.Topic) -> list[str]:
    if isinstance(parsed, topics.MarksTopic):
        return [names.marks]
    if isinstance(parsed, topics.GatewayStatusTopic):
        return [names.gateway_status(parsed.gateway_id)]
    kind = getattr(parsed, "type", "")
    device_id = parsed.device_id
    return [build(device_id) for build in (names.heartbeat, names.status)] + [
        build(device_id, kind) for build in (names.command, names.ack)
    ]


@pytest.mark.parametrize("topic", ["devices/dev_1/errors", "devices/dev_1/state", "devices/dev_1/events/device.bound"])
def test_the_gateways_own_topics_are_not_parsed_as_device_messages(topic: str) -> None:
    """What the gateway says to others is no message to itself."""
    assert topics.Topics().parse(topic) is None


def test_topics_with_another_prefix_are_ignored() -> None:
    """A topic without the configured prefix, or with another, is not ours."""
    names = topics.Topics("site/")
    assert names.parse("devices/dev_1/heartbeat") is None
    assert names.parse("other/devices/dev_1/heartbeat") is None
    assert names.errors("dev_1") == "site/devices/dev_1/errors"


def test_the_gateway_subscribes_to_device_topics() -> None:
    """The three kinds of section 3 that devices write."""
    names = topics.Topics("p/")
    from_devices = ("p/devices/+/heartbeat", "p/devices/+/status", "p/devices/+/commands/+/ack")
    assert names.inbound == (*from_devices, "p/gateways/marks")
