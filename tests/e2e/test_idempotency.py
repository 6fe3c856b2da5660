"""``Idempotency-Key`` and ``kill -9``: a call that is repeated until it is answered was done once."""

import asyncio
import contextlib
import random
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.support import Site, running_site

SEED = 3
ROUNDS = 8
ABREAST = 6
LONGEST_DELAY_SECONDS = 0.05


async def answered(site: Site, path: str, body: dict[str, Any], key: str, up: asyncio.Event) -> dict[str, Any]:
    """Send a request until it is answered, as a back end does that knows no better."""
    while True:
        await up.wait()
        with contextlib.suppress(httpx.TransportError):
            answer = await site.http.post(path, json=body, headers={"Idempotency-Key": key})
            if answer.status_code != 503:
                assert answer.is_success, f"{path}: {answer.status_code} {answer.text}"
                document: dict[str, Any] = answer.json()
                return document
        await asyncio.sleep(0)


async def one_gateway_run(site: Site, number: int, up: asyncio.Event) -> dict[str, Any]:
    """Register, bind, command; each sent again and again until it is answered. What the bind answered."""
    device = await answered(
        site, "/v1/devices", {"serial_number": f"K-{number}"}, f"register {number}".replace(" ", "-"), up
    )
    path = f"/v1/devices/{device['id']}"
    bound = await answered(site, f"{path}/bind", {"end_user_id": f"eu_{number}"}, f"bind-{number}", up)
    await answered(site, f"{path}/commands", {"type": "reboot"}, f"reboot-{number}", up)
    return bound


async def test_a_kill_between_effect_and_answer_repeats_nothing(tmp_path: Path) -> None:
    """The gateway is killed again and again while calls are under way: each has one effect and its one answer.

    A second bind would be a 409, a second command too: with the key both get the answer that was lost.
    """
    rng = random.Random(SEED)  # noqa: S311 - repeatable delays
    print(f"seed {SEED}")  # noqa: T201 - pytest shows it on failure
    async with running_site(tmp_path, "embedded", "--bind-broker-wait-seconds", "0") as site:
        for round_number in range(ROUNDS):
            up = asyncio.Event()
            up.set()
            numbers = range(round_number * ABREAST, (round_number + 1) * ABREAST)
            lives = [asyncio.create_task(one_gateway_run(site, number, up)) for number in numbers]
            await asyncio.sleep(rng.random() * LONGEST_DELAY_SECONDS)  # when it dies is drawn; nothing waits for it
            await site.gateway.kill()
            up.clear()
            await site.gateway.restart()
            up.set()
            for bound in await asyncio.gather(*lives):
                heard = await site.as_device(bound["device_token"], "POST", "heartbeat", {})
                assert heard.status_code == 200, "the token that was answered is not the one that was bound"
        assert site.count("SELECT count(*) FROM devices") == ROUNDS * ABREAST
        twice = "SELECT 1 FROM events WHERE type NOT LIKE '%line' GROUP BY device_pk, type HAVING count(*) > 1"
        assert site.count(f"SELECT count(*) FROM ({twice})") == 0  # noqa: S608 - the line above
