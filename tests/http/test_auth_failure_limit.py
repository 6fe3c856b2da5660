"""Limit on answers to failed authentication, per address and minute; a caller with a good credential is served."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
from starlette.types import Scope

from gateway.core.clock import system_clock
from gateway.http.auth_failure_limit import MOST_ADDRESSES, AuthFailureLimiter, address_of
from gateway.http.log_limit import LINES_PER_MINUTE, LINES_PER_SECOND, StrangerLines
from tests.http.support import Api, body, error, serving
from tests.support.clock import ManualClock

WRONG = "sk_live_0000000000000000000000000000000000"
LIMIT = 3
MINUTE_MS = 60_000


@asynccontextmanager
async def limited(folder: Path, refused_credentials_per_minute: int = LIMIT) -> AsyncIterator[Api]:
    """An API whose clock says that a minute has just begun: none ends in the middle of a test."""
    async with serving(folder, refused_credentials_per_minute=refused_credentials_per_minute) as api:
        api.clock.ahead_ms = -system_clock() % MINUTE_MS
        yield api


def from_(address: str | None) -> Scope:
    """A request of this address."""
    return {"type": "http", "client": None if address is None else (address, 4711)}


def refusals(limiter: AuthFailureLimiter, address: str, times: int) -> list[bool]:
    """Which of so many refusals in a row were one too many."""
    return [limiter.refused(from_(address)) is not None for _ in range(times)]


def test_each_address_has_its_own_count() -> None:
    """So many are told, then none; another address has not been counted."""
    limiter = AuthFailureLimiter(LIMIT, ManualClock())
    assert refusals(limiter, "192.0.2.1", 5) == [False] * LIMIT + [True, True]
    assert refusals(limiter, "192.0.2.2", 1) == [False]


def test_the_next_minute_starts_a_new_count() -> None:
    """``Retry-After`` says when that is; a clock that is set back locks no caller out."""
    clock = ManualClock()
    limiter = AuthFailureLimiter(1, clock)
    clock.now += 59_000
    limiter.refused(from_("192.0.2.1"))
    refused = limiter.refused(from_("192.0.2.1"))
    assert refused is not None
    assert (refused[0].reset, refused[1].seconds) == (1_700_000_100, 1)
    clock.now += 1_000
    assert refusals(limiter, "192.0.2.1", 2) == [False, True]
    clock.now -= 3_600_000
    assert refusals(limiter, "192.0.2.1", 1) == [False]


def test_remembered_addresses_are_bounded() -> None:
    """A caller that uses ever new addresses fills no memory: the one not seen for longest is forgotten."""
    limiter = AuthFailureLimiter(1, ManualClock(), most_addresses=3)
    for last in range(1, 5):
        refusals(limiter, f"192.0.2.{last}", 1)
    assert refusals(limiter, "192.0.2.4", 1) == [True]
    assert refusals(limiter, "192.0.2.1", 1) == [False]


@pytest.mark.parametrize(
    ("address", "counted_as"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("testserver", "unknown"),
        (None, "unknown"),
    ],
)
def test_an_address_is_counted_by_its_network(address: str | None, counted_as: str) -> None:
    """Of IPv6 a whole network is one subscriber's; what is no address is one stranger like any other."""
    assert address_of(from_(address)) == counted_as


def shown(credential: str) -> Scope:
    """A request of one address with this credential."""
    return {**from_("192.0.2.1"), "headers": [(b"authorization", f"Bearer {credential}".encode())]}


def test_one_bad_credential_has_a_bounded_share() -> None:
    """A device that tries its revoked token without end leaves the others at its site 270 of 300 clear answers."""
    limiter = AuthFailureLimiter(300, ManualClock())
    stuck = [limiter.refused(shown("dtok_revoked")) for _ in range(1_000)]
    assert [each is not None for each in stuck] == [False] * 30 + [True] * 970
    assert stuck[-1] is not None
    assert (stuck[-1][0].limit, "with this bad credential" in stuck[-1][1].message) == (30, True)
    others = [limiter.refused(shown(f"dtok_{number}")) is not None for number in range(300)]
    assert others == [False] * 270 + [True] * 30
    assert refusals(limiter, "192.0.2.1", 1) == [True]
    assert refusals(limiter, "192.0.2.2", 1) == [False]


async def test_failures_do_not_fill_the_log(tmp_path: Path) -> None:
    """So many lines a minute of one address, whatever is asked for; keys keep theirs; what was left out is told."""
    async with limited(tmp_path, 0) as api, asyncio.TaskGroup() as group:
        nobody = api.as_(None)
        with structlog.testing.capture_logs() as lines:
            for second in range(3):
                asked = [group.create_task(nobody.get("/nowhere")) for _ in range(60)]
                await asyncio.wait(asked)
                error(await api.back_end.get("/v1/nowhere"), 404, "not_found")
                api.clock.ahead_ms += 1_000 if second < 2 else MINUTE_MS
            await nobody.get("/nowhere")
    requests = [line for line in lines if line["event"] == "http.request"]
    assert sum("key_id" in line for line in requests) == 3
    assert sum("key_id" not in line for line in requests) == LINES_PER_MINUTE + 1
    told = [line for line in lines if line["event"] == "http.log_lines_suppressed"]
    assert [(line["lines"], line["addresses"], line["most_from"], line["of_these"]) for line in told] == [
        (180 - LINES_PER_MINUTE, 1, "127.0.0.1", 180 - LINES_PER_MINUTE)
    ]


def test_failures_from_many_addresses_do_not_fill_the_log() -> None:
    """From ever new addresses it is 50 lines a second, and no more addresses are remembered than elsewhere."""
    clock = ManualClock()
    lines = StrangerLines(clock)
    written = sum(
        lines.is_written(from_(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")) for number in range(20_000)
    )
    assert written == LINES_PER_SECOND
    with structlog.testing.capture_logs() as told:
        clock.now += MINUTE_MS
        assert lines.is_written(from_("192.0.2.1"))
    assert [(line["lines"], line["addresses"]) for line in told] == [(MOST_ADDRESSES, MOST_ADDRESSES)]


def test_without_a_limit_no_failure_is_blocked() -> None:
    """0 never says so."""
    assert not any(refusals(AuthFailureLimiter(0, ManualClock()), "192.0.2.1", 1_000))


async def test_failing_addresses_are_blocked_and_others_are_not(tmp_path: Path) -> None:
    """401 until the limit, then 429 that says when, whatever was wrong; the good key at the same address is served."""
    async with limited(tmp_path) as api:
        wrong, nobody = api.as_(WRONG), api.as_(None)
        error(await wrong.get("/v1/devices"), 401, "unauthorized")
        error(await nobody.get("/v1/devices"), 401, "unauthorized")
        error(await wrong.get("/v1/nowhere"), 401, "unauthorized")
        for client, path in ((wrong, "/v1/devices"), (nobody, "/v1/devices"), (wrong, "/v1/nowhere")):
            refused = await client.get(path)
            details = error(refused, 429, "rate_limit_exceeded")["details"]
            seconds = int(refused.headers["retry-after"])
            assert 0 < seconds <= 60
            assert details == {"retry_after_seconds": seconds}
            assert (refused.headers["x-ratelimit-limit"], refused.headers["x-ratelimit-remaining"]) == ("3", "0")
            assert "www-authenticate" not in refused.headers
        bound = await api.bound()
        body(await api.as_(bound["device_token"]).post("/v1/devices/me/heartbeat", json={}), 200)
        body(await nobody.get("/health"), 200)
        api.clock.ahead_ms += MINUTE_MS
        error(await wrong.get("/v1/devices"), 401, "unauthorized")


async def test_calls_with_a_valid_credential_are_not_counted(tmp_path: Path) -> None:
    """However many there are, and refused for another reason."""
    async with limited(tmp_path, 1) as api:
        reader = api.as_(await api.another_key("devices:read"))
        for _ in range(5):
            error(await reader.post("/v1/devices", json={"serial_number": "BP-1"}), 403, "insufficient_scope")
            body(await api.back_end.get("/v1/devices"), 200)
        error(await api.as_(WRONG).get("/v1/devices"), 401, "unauthorized")


async def test_the_block_is_logged_once(tmp_path: Path) -> None:
    """Which address it was, when it comes to the limit; of what is refused after that there is no line."""
    async with limited(tmp_path) as api:
        with structlog.testing.capture_logs() as lines:
            statuses = [(await api.as_(WRONG).get("/v1/devices")).status_code for _ in range(10)]
        told = [line for line in lines if line["event"] == "http.credentials_refused"]
        requests = [line["status"] for line in lines if line["event"] == "http.request"]
    assert [(line["address"], line["in_one_minute"]) for line in told] == [("127.0.0.1", LIMIT)]
    assert statuses == [401] * LIMIT + [429] * (10 - LIMIT)
    assert requests == [401] * LIMIT
