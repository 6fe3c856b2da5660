"""Fuzzing of requests: paths, queries, headers and bodies are answered in the API's own words, whatever they are."""

import asyncio
import errno
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from hypothesis import strategies as st
from starlette.types import ASGIApp
from structlog.testing import capture_logs

from gateway.http.app import build
from gateway.http.resources.operations import OPERATIONS
from tests.http.support import Api, serving
from tests.support.fuzzing import JSON, KEY, TEXTS, TOKEN, Target, encoded, fuzz, leaks, mangled, objects

CORPUS = Path(__file__).parent / "corpus"
OK, REFUSED, FAILED, AWAY = 200, 400, 500, 503
ENDLESS = "/v1/events/stream"

_STATE = (
    "SELECT pk, end_user_id, binding_generation, name, metadata, settings, deleted_at FROM devices",
    "SELECT id, state FROM tokens",
    "SELECT id, status FROM commands",
    "SELECT id, url, enabled FROM webhooks",
    "SELECT id, status, total FROM jobs",
    "SELECT id, revoked_at FROM api_keys",
)
_BODY = objects(
    {
        "serial_number": TEXTS,
        "model": st.sampled_from(["bota_pin", "bota_note", "other"]),
        "end_user_id": st.sampled_from(["eu_1", "eu_", "1"]),
        "supersede_reset": st.booleans(),
        "device_ids": st.lists(st.sampled_from(["dev_BOUND", "dev_NOBODY"]), max_size=3),
        "dry_run": st.booleans(),
        "type": st.sampled_from(["reboot", "factory_reset", "start_recording"]),
        "params": st.dictionaries(TEXTS, JSON, max_size=2),
        "ttl_seconds": st.integers(-1, 10**9),
        "battery_percent": st.integers(0, 100),
        "sent_at": TEXTS,
        "settings": JSON,
        "metadata": st.dictionaries(TEXTS, JSON, max_size=2),
        "name": TEXTS,
        "url": st.sampled_from(["https://example.com/x", "http://10.0.0.1/", f"https://u:{TOKEN}@h/", "x:y"]),
        "action": st.one_of(st.sampled_from(["reboot", "factory_reset"]), st.just({"type": "reboot"}), JSON),
        "targets": st.one_of(
            st.lists(st.sampled_from(["dev_BOUND", "dev_NOBODY"]), max_size=3).map(lambda ids: {"device_ids": ids}),
            st.sampled_from([{"filter": {}}, {"filter": {"status": "bound", "tag": ["a"]}}]),
            JSON,
        ),
        "pace": st.one_of(st.just({"per_minute": 600, "ramp": {"from_per_minute": 1, "double_after": 1}}), JSON),
        "abort": JSON,
        "start_at": TEXTS,
        "confirm_count": st.integers(-1, 2),
        "events": st.lists(st.sampled_from(["device.online", "*", "nothing"]), max_size=2),
    }
)
_PATHS = st.one_of(
    st.sampled_from([each.path for each in OPERATIONS if each.path != ENDLESS]).map(
        lambda path: path.format(
            device_id="dev_BOUND",
            command_id="cmd_A",
            webhook_id="wh_A",
            delivery_id="dlv_A",
            end_user_id="eu_1",
            job_id="job_A",
            broker_id="default",
        )
    ),
    st.lists(TEXTS.map(lambda text: quote(text.encode("utf-8", "replace"))), max_size=5).map(
        lambda parts: "/v1/" + "/".join(parts)
    ),
    st.just(f"/v1/devices/{TOKEN}"),
)
_NAMES = st.sampled_from(
    [
        "limit",
        "offset",
        "cursor",
        "since",
        "until",
        "every",
        "search",
        "condition",
        "status",
        "model",
        "outcome",
        "tag",
        "x",
    ]
)
_QUERIES = st.lists(
    st.tuples(_NAMES, TEXTS.map(lambda text: quote(text[:200].encode("utf-8", "replace")))), max_size=3
).map(lambda pairs: "&".join(f"{name}={value}" for name, value in pairs))
_CREDENTIALS = st.sampled_from(
    ["Bearer GOODKEY", "Bearer GOODTOKEN", f"Bearer {KEY}", f"Bearer {TOKEN}", "Basic eA==", "Bearer", "é"]
)
_HEADERS = st.lists(
    st.one_of(
        st.tuples(st.just("authorization"), _CREDENTIALS),
        st.tuples(
            st.just("content-type"),
            st.sampled_from(["application/json", "text/plain", "application/json; charset=x", ";", ""]),
        ),
        st.tuples(
            st.sampled_from(
                ["idempotency-key", "x-request-id", "last-event-id", "content-length", "content-encoding", "host"]
            ),
            TEXTS,
        ),
    ),
    max_size=3,
).map(lambda pairs: "".join(f"{name}: {_line(value)}\n" for name, value in pairs))
_LOGGED_IN = "authorization: Bearer GOODKEY\ncontent-type: application/json\n"


def _line(value: str) -> str:
    return value[:2_000].replace("\n", " ").replace("\r", " ").replace("\0", " ")


def _request(method: str, path: str, query: str, headers: str, payload: bytes) -> bytes:
    head = f"{method} {path}?{query}\n{headers}\n"
    return head.encode("utf-8", "replace") + payload.replace(b"\n", b" ")


_METHODS = st.sampled_from(["GET", "POST", "PATCH", "DELETE", "HEAD", "PUT"])
_REQUESTS = st.builds(_request, _METHODS, _PATHS, _QUERIES, st.just(_LOGGED_IN) | _HEADERS, encoded(_BODY))
REQUESTS = Target("requests", 0.1, _REQUESTS)


class FuzzedApi:
    """An API with a device that is bound, asked from the thread in which inputs are made."""

    def __init__(self, api: Api, bound: dict[str, Any]) -> None:
        self.api = api
        self._app: ASGIApp = build(api.services)
        self._loop = asyncio.get_running_loop()
        self._names = {
            b"dev_BOUND": bound["id"].encode(),
            b"GOODKEY": api.key.encode(),
            b"GOODTOKEN": bound["device_token"].encode(),
        }

    def filled(self, raw: bytes) -> bytes:
        """The input with real ids and credentials in it."""
        for name, real in self._names.items():
            raw = raw.replace(name, real)
        return raw

    def state(self) -> list[Any]:
        """What no refusal may change."""
        return [tuple(row) for sql in _STATE for row in self.api.store.read_inline(lambda view, sql=sql: view.all(sql))]  # type: ignore[misc]

    def check(self, raw: bytes) -> None:
        """Ask, in the loop."""
        asyncio.run_coroutine_threadsafe(self._check(self.filled(raw)), self._loop).result(60)

    async def _check(self, raw: bytes) -> None:
        scope, payload = _scope(raw)
        before = self.state()
        status, headers, content = await self._asked(scope, payload)
        assert status < FAILED, content
        assert b"x-request-id" in headers
        if status >= REFUSED:
            _is_helpful_error(content, is_head=scope["method"] == "HEAD")
            assert self.state() == before

    async def _asked(self, scope: dict[str, Any], payload: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
        messages: list[Any] = []
        bodies: list[dict[str, Any]] = [{"type": "http.request", "body": payload, "more_body": False}]

        async def receive() -> dict[str, Any]:
            return bodies.pop() if bodies else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            messages.append(message)

        await self._app(scope, receive, send)
        start = messages[0]
        return start["status"], dict(start["headers"]), b"".join(each.get("body", b"") for each in messages[1:])


def _is_helpful_error(content: bytes, *, is_head: bool) -> None:
    assert leaks(content.decode()) == []
    if is_head:
        return
    error = json.loads(content)["error"]
    assert error["code"]
    assert error["message"].endswith("."), error


def _scope(raw: bytes) -> tuple[dict[str, Any], bytes]:
    """As uvicorn hands a request on: a path that is percent-decoded, names in lower case."""
    head, _, payload = raw.rpartition(b"\n")
    first, *lines = head.split(b"\n")
    method, _, target = first.partition(b" ")
    path, _, query = target.partition(b"?")
    pairs = [line.partition(b":") for line in lines if b":" in line]
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method.decode("latin-1").upper() or "GET",
        "path": "/" + unquote_to_bytes(path).decode("utf-8", "replace").lstrip("/"),
        "raw_path": path,
        "query_string": query,
        "headers": [(name.strip().lower(), value.strip()) for name, _, value in pairs],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "scheme": "http",
        "root_path": "",
    }, payload


@contextmanager
def no_bug_in_the_log() -> Iterator[None]:
    """Nothing that the gateway itself calls its own failure is logged."""
    with capture_logs() as logged:
        yield
    assert [line for line in logged if line["log_level"] in ("error", "critical")] == []


async def test_random_requests_never_break_the_api(tmp_path: Path) -> None:
    """Answered below 500; a refusal names what to do, changes nothing and shows no secret."""
    async with serving(tmp_path, rate_limit_per_minute=0) as api:
        served = FuzzedApi(api, await api.bound())
        with no_bug_in_the_log():
            await asyncio.to_thread(fuzz, REQUESTS, served.check, CORPUS / "requests.json")


# --- bytes on the socket ----------------------------------------------------------------------------------------------


def _on_the_wire(raw: bytes) -> bytes:
    head, _, payload = raw.rpartition(b"\n")
    lines = head.split(b"\n")
    start = lines[0] + b" HTTP/1.1\r\n" + b"\r\n".join(lines[1:])
    return start + b"content-length: " + str(len(payload)).encode() + b"\r\n\r\n" + payload


BYTES = Target("bytes", 0.01, mangled(_REQUESTS.map(_on_the_wire)))


async def test_random_bytes_never_break_the_server(tmp_path: Path) -> None:
    """Whatever comes over a connection, its end is heard and others are served as before."""
    async with serving(tmp_path, rate_limit_per_minute=0) as api:
        served = FuzzedApi(api, await api.bound())
        host, _, port = api.url.removeprefix("http://").rpartition(":")

        def check(raw: bytes) -> None:
            with socket.create_connection((host, int(port)), timeout=60) as connection:
                _send(connection, served.filled(raw))
                _answers_are_answers(_everything(connection))

        with no_bug_in_the_log():
            await asyncio.to_thread(fuzz, BYTES, check, CORPUS / "bytes.json")
        assert (await api.back_end.get("/health")).status_code == OK


def _send(connection: socket.socket, content: bytes) -> None:
    """Send all of it. A head that is refused ends the connection before the rest is sent."""
    try:
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)
    except OSError as error:
        assert error.errno in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN)  # noqa: PT017 - what else may not happen


def _everything(connection: socket.socket) -> bytes:
    content = b""
    try:
        while part := connection.recv(65_536):
            content += part
    except ConnectionResetError:
        pass
    return content


def _answers_are_answers(content: bytes) -> None:
    assert leaks(content.decode("latin-1")) == []
    if content:
        version, status = content.split(b" ", 2)[:2]
        assert version == b"HTTP/1.1"
        assert int(status) < FAILED or int(status) == AWAY
