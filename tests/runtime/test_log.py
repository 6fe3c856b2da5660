"""Logging: events as data, one door for everything, and no secret through it."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import re
import subprocess
import sys
import threading
import warnings
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core import redaction
from gateway.core.redaction import redact
from gateway.runtime import log

if TYPE_CHECKING:
    from collections.abc import Iterator

BODY = "0123456789abcdefghijABCDEFGHIJ_-"
PREFIXES = ("dtok_", "sk_live_", "sk_test_", "rk_live_", "rk_test_", "whsec_", "mqttpw_")
MQTT_PASSWORD = "oJGCFg309UFiMO-xbHlmIrSHwkQGo3mtelmDsVXRt9A"
JWT = "eyJhbGciOiJFZERTQSJ9.eyJpc3MiOiJnIn0.c2lnbmF0dXJl"


@pytest.fixture(autouse=True)
def _logging_put_back() -> Iterator[None]:
    """Logging belongs to the process; what a test sets up is taken down."""
    root, levels = logging.getLogger(), {name: logging.getLogger(name).level for name in log.QUIET}
    handlers, level, hooks = root.handlers[:], root.level, (sys.excepthook, threading.excepthook)
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    sys.excepthook, threading.excepthook = hooks
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def stream() -> io.StringIO:
    """A log as JSON lines, since it is no terminal."""
    stream = io.StringIO()
    log.configure(stream=stream)
    return stream


def events(stream: io.StringIO) -> list[dict[str, Any]]:
    """What was logged, without the times."""
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    return [{key: value for key, value in line.items() if key != "timestamp"} for line in lines]


def test_events_are_data(stream: io.StringIO) -> None:
    """An event has its name, level and facts; numbers stay numbers."""
    structlog.get_logger().info("broker.session_cut", client_id="dev_1", after_ms=12, zombies=None)
    assert events(stream) == [
        {"event": "broker.session_cut", "level": "info", "client_id": "dev_1", "after_ms": 12, "zombies": None}
    ]


def test_times_are_rfc3339_in_utc(stream: io.StringIO) -> None:
    """With Z, as everywhere at the edge."""
    structlog.get_logger().info("a.b")
    stamp = json.loads(stream.getvalue())["timestamp"]
    assert stamp.endswith("Z")
    assert datetime.fromisoformat(stamp).utcoffset() == timedelta(0)


def test_level_holds_for_both_kinds_of_logger() -> None:
    """Below it nothing is written, by either kind of logger."""
    stream = io.StringIO()
    log.configure(level="warning", stream=stream)
    for logger in (structlog.get_logger(), logging.getLogger("some.library")):
        logger.info("a.b")
        logger.warning("c.d")
    assert [event["event"] for event in events(stream)] == ["c.d", "c.d"]


def test_context_is_bound(stream: io.StringIO) -> None:
    """What is bound for a request or connection is on each of its events, a library's too."""
    structlog.contextvars.bind_contextvars(request_id="req_1")
    structlog.get_logger().info("a.b")
    logging.getLogger("library").warning("said")
    assert [event["request_id"] for event in events(stream)] == ["req_1", "req_1"]


def test_standard_logging_is_included(stream: io.StringIO) -> None:
    """A library's record becomes an event with the logger's name, its arguments filled in."""
    logging.getLogger("uvicorn.error").warning("cannot bind %s", "127.0.0.1")
    assert events(stream) == [{"event": "cannot bind 127.0.0.1", "level": "warning", "logger": "uvicorn.error"}]


@pytest.mark.parametrize("name", ["amqtt.broker", "transitions.core", "mqtt", "uvicorn.access"])
def test_verbose_libraries_are_limited_to_warnings(name: str) -> None:
    """Also at debug, where some of them would write packets with the passwords in them."""
    stream = io.StringIO()
    log.configure(level="debug", stream=stream)
    logging.getLogger(name).debug("packet")
    logging.getLogger(name).info("started")
    assert events(stream) == []


def test_configuring_twice_writes_once(stream: io.StringIO) -> None:
    """The last setup is the one in force."""
    again = io.StringIO()
    log.configure(stream=again)
    structlog.get_logger().info("a.b")
    assert (stream.getvalue(), len(events(again))) == ("", 1)


def test_python_warnings_are_included(stream: io.StringIO) -> None:
    """A warning of Python's becomes an ordinary line of the log."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("old ways", UserWarning, stacklevel=1)
    (event,) = events(stream)
    assert event["logger"] == "py.warnings"
    assert "old ways" in event["event"]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_secrets_are_redacted_everywhere(stream: io.StringIO, prefix: str) -> None:
    """In the event, in keys and values, nested, in bytes and in objects: at most the prefix stays."""
    secret = prefix + BODY

    class Holder:
        def __repr__(self) -> str:
            return f"<Holder {secret}>"

    structlog.get_logger().warning(
        f"said {secret}",
        text=f"a {secret} b",
        nested={"list": [secret, (secret,), {secret}], secret: 1},
        raw=secret.encode(),
        thing=Holder(),
        error=ValueError(secret),
        **{secret: "key"},
    )
    assert secret[: len(prefix) + 1] not in stream.getvalue()
    (event,) = events(stream)
    assert event["text"] == f"a {prefix}… b"
    assert event["nested"]["list"] == [f"{prefix}…", [f"{prefix}…"], [f"{prefix}…"]]


def test_secrets_are_cut_from_tracebacks(stream: io.StringIO) -> None:
    """With cause and group, in structlog's and the standard library's exceptions alike."""
    secret = "dtok_" + BODY
    grouped = ExceptionGroup(f"group {secret}", [RuntimeError(f"inner {secret}")])
    grouped.__cause__ = ValueError(secret)
    try:
        raise grouped
    except ExceptionGroup:
        structlog.get_logger().exception("a.b")
        logging.getLogger("library").exception("failed with %s", secret)
    assert "dtok_0" not in stream.getvalue()
    ours, theirs = events(stream)
    assert "inner dtok_…" in ours["exception"]
    assert "ValueError: dtok_…" in theirs["exception"]
    assert theirs["event"] == "failed with dtok_…"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"grant {JWT}.", "grant eyJ…."),
        ("Authorization: Bearer abc.def-123", "Authorization: Bearer …"),
        ("mqtts://gateway:p@ss:w/rd@h:8883 is away", "mqtts://gateway:********@h:8883 is away"),
        ("dev_1:$6$c2FsdA==$aGFzaGhhc2g=", "dev_1:$6$…"),
        (f"password: {MQTT_PASSWORD}", "password: …"),
        (f"""{{"mqtt": {{"password":"{MQTT_PASSWORD}"}}}}""", """{"mqtt": {"password":"…"}}"""),
        (f"mqtt_password='{MQTT_PASSWORD}', port=1", "mqtt_password='…', port=1"),
        (f'"body": "{{\\"password\\": \\"{MQTT_PASSWORD}\\"}}"', '"body": "{\\"password\\": \\"…\\"}"'),
        (f"GATEWAY_PASSWORD={MQTT_PASSWORD}", "GATEWAY_PASSWORD=…"),
        (f"password: {MQTT_PASSWORD}x", f"password: {MQTT_PASSWORD}x"),
        ("password: should be at most 128 characters", "password: should be at most 128 characters"),
        ("dtok_ and sk_live_ are prefixes", "dtok_ and sk_live_ are prefixes"),
        ("devices/dev_01J/heartbeat", "devices/dev_01J/heartbeat"),
        ("http://127.0.0.1:8080/v1", "http://127.0.0.1:8080/v1"),
    ],
)
def test_other_kinds_of_secrets_are_cut(text: str, expected: str) -> None:
    """Grants, bearers, passwords in URLs and password entries go; what only resembles them stays."""
    assert redact(text) == expected


def test_values_under_secret_keys_are_cut(stream: io.StringIO) -> None:
    """A password has no fixed form; the key reveals that it is one."""
    structlog.get_logger().info("a.b", password="hunter22", nested={"token": b"x"}, tokens=3)
    (event,) = events(stream)
    assert (event["password"], event["nested"], event["tokens"]) == ("…", {"token": "…"}, 3)


@settings(deadline=None)
@given(
    prefix=st.sampled_from(PREFIXES),
    body=st.text(alphabet=BODY, min_size=32, max_size=60),
    before=st.text(max_size=20),
    after=st.text(max_size=20),
)
def test_no_secret_survives_redaction(prefix: str, body: str, before: str, after: str) -> None:
    """Whatever stands around it, no more than 12 characters of a secret are left."""
    secret = prefix + body
    assert secret[:13] not in redact(before + secret + after)


@pytest.mark.parametrize("pattern", dict.fromkeys(pattern for _, pattern, _ in redaction.RULES))
@settings(deadline=None)
@given(data=st.data())
def test_every_redaction_rule_is_prefiltered(pattern: re.Pattern[str], data: st.DataObject) -> None:
    """Text is only searched where it has what a rule needs: everything that its pattern matches has that."""
    text = data.draw(st.from_regex(pattern))
    assert any(needed in text for needed, which, _ in redaction.RULES if which is pattern)


@pytest.mark.parametrize("unit", ["://a:", "eyJaaaaaaaa", "sk_live_", "$6$", "bearer ", "://a:b", "dtok_a"])
def test_redaction_of_hostile_text_ends(unit: str) -> None:
    """Repeated beginnings of secrets, 1 MiB of them, are searched without going back over them again and again."""
    redact(unit * (2**20 // len(unit)))


def run(code: str, **files: Any) -> subprocess.CompletedProcess[str]:
    """A separate process that configures logging and runs this code."""
    program = f"import structlog, threading\nfrom gateway.runtime import log\nlog.configure()\n{code}"
    return subprocess.run([sys.executable, "-c", program], text=True, check=False, timeout=30, **files)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (f"raise ValueError('dtok_{BODY}')", 1),
        (f"def f(): raise ValueError('dtok_{BODY}')\nt = threading.Thread(target=f); t.start(); t.join()", 0),
    ],
    ids=["main", "thread"],
)
def test_a_crash_is_logged_as_an_event(code: str, status: int) -> None:
    """An uncaught error is logged like everything else, redacted, and the exit status reveals it."""
    crashed = run(code, capture_output=True)
    (line,) = crashed.stderr.splitlines()
    event = json.loads(line)
    assert (crashed.returncode, event["event"], event["level"]) == (status, "process.crashed", "critical")
    assert "ValueError: dtok_…" in event["exception"]


def test_record_that_cannot_be_formatted() -> None:
    """The standard library would print its arguments to stderr; only the fact is told."""
    logged = run(f"import logging; logging.getLogger('library').warning('%d', 'dtok_{BODY}')", capture_output=True)
    (line,) = logged.stderr.splitlines()
    event = json.loads(line)
    assert (event["event"], event["level"], event["logger"]) == ("log.unprintable", "error", "library")


def terminal(code: str) -> str:
    """What this code logs on a terminal."""
    ours, theirs = pty.openpty()
    run(code, stderr=theirs)
    os.close(theirs)
    with os.fdopen(ours, "rb") as screen:
        return screen.read1().decode()


def test_a_terminal_gets_readable_lines() -> None:
    """A console line with the event and its facts, no JSON; secrets are cut there as well."""
    shown = terminal(f"structlog.get_logger().warning('device.bound', n=1, text='dtok_{BODY}')")
    assert "device.bound" in shown
    assert "dtok_…" in shown
    assert "{" not in shown


def test_logged_text_is_escaped_for_the_terminal() -> None:
    """A device's text can't clear the screen, nor start a line that looks like the gateway's."""
    shown = terminal(r"structlog.get_logger().warning('a.b', text='x\x1b[2J\nfake\x9b1m')")
    assert r"x\x1b[2J\x0afake\x9b1m" in shown
    assert "\x1b[2J" not in shown
    turned = terminal(r"structlog.get_logger().warning('a.b', text='x\u202e\u200b\u2028y', **{'k\u202e': 1})")
    assert r"x\u202e\u200b\u2028y" in turned
    assert not {"\u202e", "\u200b", "\u2028"} & set(turned)


def test_lines_of_one_kind_are_limited_per_second() -> None:
    """The rest is counted and told with the next; other kinds, and other levels, have their own."""
    now = [100.0]
    sparing = log.Sparing(2, lambda: now[0])

    def passes(event: str, level: str = "info") -> dict[str, object] | None:
        try:
            return dict(sparing(None, level, {"event": event}))
        except structlog.DropEvent:
            return None

    assert [passes("http.request") is not None for _ in range(5)] == [True, True, False, False, False]
    assert passes("http.request", "warning")
    assert passes("other")
    now[0] += 1
    assert passes("http.request") == {"event": "http.request", "left_out_before": 3}
    assert passes("http.request") == {"event": "http.request"}


def test_libraries_are_limited_too() -> None:
    """What asyncio says thousands of times in a second is written a few times; another library has its own."""
    stream = io.StringIO()
    log.configure("info", "json", stream, lines_per_second=200)
    for number in range(5_000):
        logging.getLogger("asyncio").error("socket.accept() out of system resource %d", number)
    logging.getLogger("other").error("something else")
    assert stream.getvalue().count("out of system resource") < 100
    assert stream.getvalue().count("something else") == 1
