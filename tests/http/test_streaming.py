"""The stream of events: nothing is missed and nothing comes twice, and whatever ends it ends it well."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from gateway.errors import StoreError, UnauthorizedError
from gateway.http.responses import Stream
from gateway.http.server.server import HttpServer
from gateway.http.stream_limit import StreamLimiter, StreamLimits
from gateway.http.streaming import Streaming
from gateway.store import Tx, device_sql, event_sql, key_sql
from tests.http.sse import GUARD_SECONDS, PATH, Reader, open_stream
from tests.http.support import TLS, Api, body, error, serving
from tests.support import postgres
from tests.support.wait import eventually

MINUTE_MS = 60_000
LAST_CHUNK = b"\r\n0\r\n\r\n"


@pytest.fixture(autouse=True)
async def _guard() -> AsyncIterator[None]:
    """Whatever is waited for here must happen."""
    async with asyncio.timeout(GUARD_SECONDS):
        yield


async def trail(api: Api) -> list[str]:
    """Ids of the project's events, the oldest first."""
    rows = await api.store.read(
        lambda view: view.all("SELECT id FROM events WHERE project_id = ? ORDER BY seq", api.project_id)
    )
    return [row["id"] for row in rows]


def open_streams(api: Api) -> int:
    """How many streams the gateway serves."""
    return api.services.streams.count


async def test_streamed_events_equal_listed_ones(api: Api) -> None:
    """Not what was before; each with its id and type, in the order of the commits."""
    await api.registered("BP-0")
    async with open_stream(api) as stream:
        await api.bound("BP-1")
        came = await stream.take(2)
        assert [event["type"] for event in came] == ["device.registered", "device.bound"]
        assert came[::-1] == body(await api.back_end.get("/v1/events", params={"limit": "2"}), 200)["data"]


async def test_a_stream_resumes_after_the_last_event_id(api: Api) -> None:
    """By the header or by the query, the header first; what was seen does not come again."""
    for number in range(5):
        await api.registered(f"BP-{number}")
    ids = await trail(api)
    async with open_stream(api, last_event_id=ids[1]) as stream:
        assert [event["id"] for event in await stream.take(3)] == ids[2:]
    async with open_stream(api, f"last_event_id={ids[2]}") as stream:
        assert [event["id"] for event in await stream.take(2)] == ids[3:]
    async with open_stream(api, f"last_event_id={ids[0]}", last_event_id=ids[3]) as stream:
        await api.registered("BP-5")
        assert [event["id"] for event in await stream.take(2)] == (await trail(api))[4:]


async def test_a_deleted_last_event_is_resumed_by_its_time(api: Api) -> None:
    """What is still there and younger comes; an id from the future waits for what is to come."""
    for number in range(4):
        await api.registered(f"BP-{number}")
    ids = await trail(api)
    await api.store.write(lambda tx: tx.run("DELETE FROM events WHERE id IN (?, ?)", *ids[:2]))
    async with open_stream(api, last_event_id=ids[0]) as stream:
        assert [event["id"] for event in await stream.take(2)] == ids[2:]
    async with open_stream(api, last_event_id="evt_7ZZZZZZZZZZZZZZZZZZZZZZZZZ") as stream:
        await api.registered("BP-9")
        assert [event["id"] for event in await stream.take(1)] == (await trail(api))[-1:]


async def test_no_event_is_missed_under_load(api: Api) -> None:
    """Streams that are opened in the middle of writes, broken off and taken up again give every event once."""
    await api.registered("first")
    last = (await trail(api))[0]
    number_of = 200

    async def write() -> None:
        for number in range(number_of):
            await api.registered(f"BP-{number}")

    writing, seen = asyncio.create_task(write()), [last]
    while len(seen) <= number_of:
        async with open_stream(api, last_event_id=seen[-1]) as stream:
            seen += [event["id"] for event in await stream.take(min(17, number_of + 1 - len(seen)))]
    await writing
    assert seen == await trail(api)


async def test_a_stream_is_filtered_by_type_and_device(api: Api) -> None:
    """As the list is; and it goes on after an event that did not match."""
    one = await api.registered("BP-1")
    async with (
        open_stream(api, "type=device.bound") as of_type,
        open_stream(api, f"device_id={one['id']}") as of_device,
        open_stream(api, f"device_id={one['id']}&type=device.unbound") as of_both,
    ):
        two = await api.bound("BP-2")
        await api.back_end.post(f"/v1/devices/{one['id']}/bind", json={"end_user_id": "eu_1"})
        await api.back_end.post(f"/v1/devices/{one['id']}/unbind")
        assert [event["data"]["device_id"] for event in await of_type.take(2)] == [two["id"], one["id"]]
        wanted = ["device.bound", "token.revoked", "device.unbound"]
        assert [event["type"] for event in await of_device.take(3)] == wanted
        assert [event["type"] for event in await of_both.take(1)] == ["device.unbound"]


async def test_a_stream_contains_its_project_alone(api: Api) -> None:
    """Neither new events nor, by the id of one, old ones."""
    first = await api.registered("BP-1")
    other = await api.another_key(project="two")
    last = (await trail(api))[0]
    async with open_stream(api, key=other) as news, open_stream(api, key=other, last_event_id=last) as old:
        await api.registered("BP-2")
        body(await api.as_(other).post("/v1/devices", json={"serial_number": "BP-3"}), 201)
        for stream in (news, old):
            (event,) = await stream.take(1)
            assert event["data"]["serial_number"] == "BP-3"
            assert event["data"]["device_id"] != first["id"]


async def test_an_idle_stream_sends_comments(tmp_path: Path) -> None:
    """So that neither end, nor anything between them, takes the connection for dead; also while others are busy."""
    async with (
        serving(tmp_path, stream_heartbeat_seconds=0.05) as api,
        open_stream(api, "type=token.refreshed") as stream,
    ):
        other = api.as_(await api.another_key(project="two"))
        for number in range(3):
            await other.post("/v1/devices", json={"serial_number": f"BP-{number}"})
            assert await stream.comment() == "still here"


@pytest.mark.parametrize("last_event_id", ["junk", "dev_1", "evt_", "evt_x y", "evt_" + "x" * 65])
async def test_an_invalid_last_event_id_is_refused(api: Api, last_event_id: str) -> None:
    """400 that names the header, or the parameter."""
    answer = await api.back_end.get(PATH, headers={"Last-Event-ID": last_event_id})
    assert error(answer, 400, "invalid_request")["details"]["field"] == "Last-Event-ID"
    answer = await api.back_end.get(PATH, params={"last_event_id": last_event_id})
    assert error(answer, 400, "invalid_request")["details"]["field"] == "last_event_id"


async def test_an_empty_last_event_id_is_ignored(api: Api) -> None:
    """As browsers send it before they have seen an event."""
    async with open_stream(api, last_event_id="") as stream:
        await api.registered()
        assert len(await stream.take(1)) == 1


async def test_head_opens_no_stream(api: Api) -> None:
    """The headers of a stream, and its end."""
    async with httpx.AsyncClient(base_url=api.url, headers={"Authorization": f"Bearer {api.key}"}) as client:
        answer = await client.head(PATH)
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, "text/event-stream", b"")
    assert open_streams(api) == 0


async def test_streams_of_a_key_are_bounded(tmp_path: Path) -> None:
    """One more is a 429 that says what to do; when one is closed there is room again; another key is not concerned."""
    async with serving(tmp_path, streams=StreamLimiter(StreamLimits(per_key=2))) as api:
        async with open_stream(api), open_stream(api):
            answer = await api.back_end.get(PATH)
            assert "Close one" in error(answer, 429, "rate_limit_exceeded")["message"]
            assert int(answer.headers["retry-after"]) > 0
            async with open_stream(api, key=await api.another_key()):
                assert open_streams(api) == 3
        await eventually(lambda: open_streams(api) == 0, "streams that are closed are counted no more")
        async with open_stream(api):
            pass


async def test_the_total_number_of_streams_is_bounded(tmp_path: Path) -> None:
    """One more is a 503 that says when to come again."""
    async with serving(tmp_path, streams=StreamLimiter(StreamLimits(total=1))) as api, open_stream(api):
        answer = await api.as_(await api.another_key()).get(PATH)
        error(answer, 503, "service_unavailable")
        assert int(answer.headers["retry-after"]) > 0


async def test_the_streams_of_a_key_do_not_block_other_keys(tmp_path: Path) -> None:
    """One key takes all places; each stream of another takes one of its, until they have as many."""
    async with (
        serving(tmp_path, streams=StreamLimiter(StreamLimits(per_key=10, total=4))) as api,
        contextlib.AsyncExitStack() as all_,
    ):
        greedy = [await all_.enter_async_context(open_stream(api)) for _ in range(4)]
        other = await api.another_key()
        late = [await all_.enter_async_context(open_stream(api, key=other)) for _ in range(2)]
        assert [await stream.end() for stream in greedy[2:]] == [[], []]
        assert open_streams(api) == 4
        for client in (api.as_(other), api.back_end):
            error(await client.get(PATH), 503, "service_unavailable")
        device = await api.registered()
        for stream in (*greedy[:2], *late):
            assert [event["data"]["device_id"] for event in await stream.take(1)] == [device["id"]]


async def revoked(api: Api, key_id: str) -> None:
    """Another process revokes the key, as an operator does."""
    where = ["--data-dir", str(api.data_dir)]
    if not api.store.is_local:
        where += ["--database", postgres.database(api.data_dir).url]
    command = ("gateway", "keys", "revoke", key_id, "--yes", *where)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", *command, stdout=pipe, stderr=pipe)
    _, said = await process.communicate()
    assert process.returncode == 0, said.decode()


async def expired(api: Api, key_id: str) -> None:
    """Its time is over."""
    await api.store.write(lambda tx: key_sql.expire(tx, key_id, tx.now + MINUTE_MS))
    api.clock.ahead_ms += MINUTE_MS + 1


async def rotated(api: Api, key_id: str) -> None:
    """It has another secret, and the overlap is over."""
    await api.store.write(lambda tx: key_sql.rotate(tx, key_id, MINUTE_MS))
    api.clock.ahead_ms += MINUTE_MS + 1


@pytest.mark.parametrize("end", [revoked, expired, rotated])
async def test_a_stream_ends_with_its_key(api: Api, end: Callable[[Api, str], Awaitable[None]]) -> None:
    """Cleanly, whether or not anything happens on it; the streams of other keys go on."""
    key = await api.another_key()
    key_id = await api.store.read(lambda view: str(view.value("SELECT id FROM api_keys WHERE name = 'another'")))
    async with open_stream(api, key=key) as ending, open_stream(api) as going_on:
        with capture_logs() as logs:
            await end(api, key_id)
            assert await ending.end() == []
        ended = [log for log in logs if log["event"] == "http.stream_ended"]
        assert [(log["key_id"], log["because"]) for log in ended] == [(key_id, "revoked")]
        await api.registered()
        assert len(await going_on.take(1)) == 1


def test_a_revoked_key_is_noticed_in_time() -> None:
    """Within a second: half of it for the look, half for the way."""
    assert StreamLimits().recheck_seconds <= 0.5


async def test_an_unreadable_registry_is_logged_once() -> None:
    """However often the stream looks; it goes on, and ends when the key is found to be over."""
    streams, refused = StreamLimiter(StreamLimits(recheck_seconds=0.01)), StoreError("away")
    looks = 0

    async def still_good() -> None:
        nonlocal looks
        looks += 1
        if looks > 50:
            raise UnauthorizedError("over")
        raise refused

    async def parts() -> AsyncGenerator[bytes, None]:
        yield b": begun\n\n"
        await asyncio.Event().wait()

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        await Streaming(Stream(parts(), "text/event-stream"), streams, "key_1", still_good)(scope, receive, send)

    async with HttpServer(served, "127.0.0.1", 0) as server, httpx.AsyncClient(verify=TLS) as client:
        with capture_logs() as logs:
            assert (await client.get(server.url)).text == ": begun\n\n"
    assert [log["event"] for log in logs].count("http.stream_not_checked") == 1


async def test_a_stream_ends_with_the_gateway(tmp_path: Path) -> None:
    """Cleanly, with all that was committed, and without using up the time that a stop may take."""
    streams: list[Reader] = []
    async with contextlib.AsyncExitStack() as clients:
        with capture_logs() as logs:
            async with serving(tmp_path) as api:
                streams += [await clients.enter_async_context(open_stream(api)) for _ in range(3)]
                await api.registered()
                for stream in streams:
                    assert len(await stream.take(1)) == 1
        assert [await stream.end() for stream in streams] == [[], [], []]
    events_logged = [log["event"] for log in logs]
    assert events_logged.count("http.stream_ended") == 3
    assert "http.requests_cut" not in events_logged


async def test_no_stream_opens_during_the_stop(api: Api) -> None:
    """503: a client comes again when it is back."""
    api.services.streams.close()
    error(await api.back_end.get(PATH), 503, "service_unavailable")


def _much(tx: Tx, device_id: str) -> None:
    """More than any socket holds."""
    device = device_sql.by_id(tx, device_id)
    assert device
    for _ in range(1_000):
        event_sql.record(tx, device, "device.updated", "key_1", filler="x" * 16_000)


async def _what_came(client: socket.socket) -> bytes:
    came = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while part := await asyncio.get_running_loop().sock_recv(client, 1_000_000):
            came += part
    return bytes(came)


async def test_a_client_that_does_not_read_is_cut_off(tmp_path: Path) -> None:
    """After the time of the limits; nothing piles up for it, and its place is free."""
    async with serving(tmp_path, streams=StreamLimiter(StreamLimits(send_seconds=0.2))) as api:
        device = await api.registered()
        first = (await trail(api))[0]
        await api.store.write(lambda tx: _much(tx, device["id"]))
        with socket.socket() as client, capture_logs() as logs:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            client.setblocking(False)  # noqa: FBT003 - its only way
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, ("127.0.0.1", httpx.URL(api.url).port))
            head = f"GET {PATH}?last_event_id={first} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.key}\r\n\r\n"
            await loop.sock_sendall(client, head.encode())
            await eventually(lambda: open_streams(api) == 1, "the stream is open")
            await eventually(lambda: open_streams(api) == 0, "the slow client is dropped")
            await eventually(lambda: any(log["event"] == "http.request" for log in logs), "the request is over")
            assert not (await _what_came(client)).endswith(LAST_CHUNK)
        assert [log["because"] for log in logs if log["event"] == "http.stream_ended"] == ["slow"]
        assert not [log for log in logs if log["log_level"] == "error"]


async def test_a_disconnected_client_is_noticed(api: Api) -> None:
    """Its place is free without an event, a comment or a time that has to pass."""
    async with open_stream(api):
        assert open_streams(api) == 1
    await eventually(lambda: open_streams(api) == 0, "the gateway knows that the client is gone")
