"""The rows of the access matrix: what is tried, who may do it by the contract (section 3), and where brokers differ."""

from tests.broker.access_matrix import (
    ACTIVE,
    DEVICES,
    DOCTOR,
    GATEWAY,
    INTEGRATOR,
    RESET_ONLY,
    Row,
    clears,
    connects,
    leaves,
    leaves_will,
    publishes,
    reads,
    takes_over_session,
)

ALL = frozenset({ACTIVE, RESET_ONLY, INTEGRATOR, DOCTOR, GATEWAY})
OWNER = DEVICES | {GATEWAY}
ONE = frozenset({GATEWAY})
PROBE = frozenset({DOCTOR})
READERS = frozenset({INTEGRATOR, GATEWAY})
NONE: frozenset[str] = frozenset()
FILTERED = "Mosquitto grants every subscription, and delivers by it what may be read."
KEPT = "Neither an ACL of Mosquitto nor RabbitMQ's questions have a word for *retain*."
BY_NAME = "RabbitMQ hands nothing that is retained to a wildcard."

HEARTBEAT, STATUS, ACK = "devices/{own}/heartbeat", "devices/{own}/status", "devices/{own}/commands/reboot/ack"
COMMAND, ERRORS, STATE = "devices/{own}/commands/reboot", "devices/{own}/errors", "devices/{own}/state"
FOREIGN_COMMAND = "devices/{other}/commands/factory_reset"

ROWS = (
    Row("connect", connects, ALL),
    Row("connect under another device's client id and disturb it", takes_over_session, NONE),
    Row("publish its own `heartbeat`", publishes(HEARTBEAT), OWNER),
    Row("publish its own `status`, retained", publishes(STATUS, retain=True), OWNER),
    Row("publish its own acknowledgement", publishes(ACK), OWNER),
    Row("publish on its own command topic, retained", publishes(COMMAND, retain=True), ONE),
    Row("clear its own retained command", clears(COMMAND), ONE),
    Row("publish its own `errors`", publishes(ERRORS), ONE),
    Row("publish its own `state`", publishes(STATE), ONE),
    Row("publish another device's `heartbeat`", publishes("devices/{other}/heartbeat"), ONE),
    Row("publish another device's acknowledgement", publishes("devices/{other}/commands/factory_reset/ack"), ONE),
    Row("publish on another device's command topic, retained", publishes(FOREIGN_COMMAND, retain=True), ONE),
    Row("publish a gateway's status", publishes("gateways/gw_1/status"), ONE),
    Row("publish on `$SYS/…`", publishes("$SYS/attempt"), NONE),
    Row("publish on `$CONTROL/…`", publishes("$CONTROL/dynamic-security/v1"), NONE),
    Row("publish on `$share/…`", publishes("$share/g/devices/{other}/heartbeat"), NONE),
    Row("leave a retained `status`", leaves(STATUS), OWNER),
    Row("leave a retained `heartbeat`", leaves(HEARTBEAT), ONE, more={"M": DEVICES, "R": DEVICES}, note=KEPT),
    Row("have a last will on its own `status`", leaves_will(STATUS), OWNER),
    Row("have a last will on its own command topic", leaves_will(COMMAND), ONE),
    Row("have a last will on another device's command topic", leaves_will(FOREIGN_COMMAND), ONE),
    Row("read its own commands by name", reads(COMMAND, COMMAND), OWNER | {DOCTOR}),
    Row("read its own commands by `commands/+`", reads("devices/{own}/commands/+", COMMAND), OWNER | {DOCTOR}),
    Row("be handed its own retained command by name", reads(COMMAND, COMMAND, retained=True), OWNER | {DOCTOR}),
    Row(
        "be handed its own retained command by `commands/+`",
        reads("devices/{own}/commands/+", COMMAND, retained=True),
        OWNER | {DOCTOR},
        less={"R": OWNER | {DOCTOR}},
        note=BY_NAME,
    ),
    Row("read its own `errors`", reads(ERRORS, ERRORS), OWNER),
    Row(
        "read its own `state` by `#` behind its id",
        reads("devices/{own}/#", STATE),
        ONE,
        more={"M": frozenset({INTEGRATOR})},
        note=FILTERED,
    ),
    Row("read another device's commands by name", reads(FOREIGN_COMMAND, FOREIGN_COMMAND), ONE | {DOCTOR}),
    Row("read all commands by `+` for the id", reads("devices/+/commands/+", FOREIGN_COMMAND), ONE | {DOCTOR}),
    Row(
        "read other devices' commands by `#`",
        reads("#", FOREIGN_COMMAND),
        ONE,
        more={"M": PROBE},
        note=FILTERED,
    ),
    Row(
        "read other devices' commands by `$share/…`",
        reads("$share/g/devices/+/commands/+", FOREIGN_COMMAND),
        NONE,
        more={"M": frozenset({GATEWAY, DOCTOR})},
        note=FILTERED,
    ),
    Row("read other devices' heartbeats", reads("devices/+/heartbeat", "devices/{other}/heartbeat"), ONE),
    Row("read `$SYS/#`", reads("$SYS/#", "$SYS/broker/uptime"), NONE),
    Row("read the fleet's `state`", reads("devices/+/state", "devices/{other}/state"), READERS),
    Row(
        "read the fleet's events",
        reads("devices/+/events/#", "devices/{other}/events/device.bound"),
        READERS,
    ),
    Row(
        "read the gateways' status",
        reads("gateways/#", "gateways/gw_1/status"),
        READERS | PROBE,
    ),
)
