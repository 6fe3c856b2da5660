"""Deliveries to real receivers: signed, tried again, replayed, and no receiver holds up another."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from gateway.webhooks.sender import WebhookSender
from tests.http.support import Api, Json, body, error
from tests.support.receiver import BUSY, receiving
from tests.support.wait import eventually
from tests.webhooks.support import (
    GUARD_SECONDS,
    advance_clock,
    create_webhook,
    deliveries,
    delivering,
    wait_for_delivery,
)


@pytest.fixture(autouse=True)
async def _guard() -> AsyncIterator[None]:
    """Whatever is waited for here must happen."""
    async with asyncio.timeout(GUARD_SECONDS):
        yield


async def test_an_event_arrives_signed_and_equal_to_the_listed_one(api: Api) -> None:
    """POST of the event as JSON with the headers of the contract; both signatures good, and bad with another secret."""
    async with receiving() as receiver, delivering(api):
        webhook = await create_webhook(api, receiver.url)
        await api.registered()
        (request,) = await receiver.got(1)
        (event, _created) = body(await api.back_end.get("/v1/events"), 200)["data"]
        assert request.line == "POST /hook?x=1 HTTP/1.1"
        assert request.event == event
        assert request.headers["content-type"] == "application/json"
        assert request.headers["host"] == f"127.0.0.1:{receiver.port}"
        assert request.headers["webhook-id"] == request.headers["x-bota-event-id"] == event["id"]
        assert request.headers["webhook-timestamp"] == request.headers["x-bota-timestamp"]
        assert abs(int(request.headers["webhook-timestamp"]) - datetime.now(UTC).timestamp()) < GUARD_SECONDS
        assert request.is_signed_with(webhook["secret"])
        assert not request.is_signed_with("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX")
        delivery = await wait_for_delivery(api, webhook, "delivered")
        assert (delivery["event_id"], delivery["event_type"]) == (event["id"], event["type"])
        assert (delivery["response_status"], delivery["error"], delivery["next_attempt_at"]) == (204, None, None)


async def test_events_arrive_in_order(api: Api) -> None:
    """Also when there are many of them."""
    async with receiving() as receiver, delivering(api):
        await create_webhook(api, receiver.url)
        for number in range(30):
            await api.registered(f"BP-{number}")
        came = await receiver.got(30)
        assert [each.event["data"]["serial_number"] for each in came] == [f"BP-{number}" for number in range(30)]


async def test_only_subscribed_types_arrive(api: Api) -> None:
    """The others make no delivery."""
    async with receiving() as receiver, delivering(api):
        webhook = await create_webhook(api, receiver.url, "device.bound", "device.unbound")
        device = await api.bound()
        await api.back_end.post(f"/v1/devices/{device['id']}/unbind")
        await receiver.got(2)
        assert receiver.types == ["device.bound", "device.unbound"]
        assert len(await deliveries(api, webhook)) == 2


async def test_a_failure_is_retried_by_the_schedule(api: Api) -> None:
    """After a minute, then after four more; each try has a new signature, under the same id."""
    async with receiving(BUSY, BUSY) as receiver, delivering(api, WebhookSender(clock=api.clock, allow_loopback=True)):
        webhook = await create_webhook(api, receiver.url)
        await api.registered()
        delivery = await wait_for_delivery(api, webhook, "pending")
        assert (delivery["response_status"], delivery["error"]) == (500, "The receiver answered 500.")
        assert _seconds_to_next(delivery) == 60
        advance_clock(api, 61)
        delivery = await wait_for_delivery(api, webhook, "pending", attempts=2)
        assert _seconds_to_next(delivery) == 240
        advance_clock(api, 241)
        delivery = await wait_for_delivery(api, webhook, "delivered", attempts=3)
        assert (delivery["response_status"], delivery["error"]) == (204, None)
        first, second, third = receiver.received
        assert first.body == second.body == third.body
        assert first.headers["webhook-id"] == third.headers["webhook-id"]
        assert int(third.headers["webhook-timestamp"]) >= int(first.headers["webhook-timestamp"]) + 302
        assert third.is_signed_with(webhook["secret"])


async def test_a_clock_that_is_set_back_delays_no_attempt(api: Api) -> None:
    """The pause counts from then: a try that was a minute away is that still, not an hour and a minute."""
    async with receiving(BUSY, BUSY) as receiver, delivering(api, WebhookSender(clock=api.clock, allow_loopback=True)):
        webhook = await create_webhook(api, receiver.url)
        await api.registered()
        await wait_for_delivery(api, webhook, "pending")
        advance_clock(api, -3_600)
        await eventually(lambda: _due_within(api, webhook, 60), "the pause counts from now")
        advance_clock(api, 61)
        await wait_for_delivery(api, webhook, "pending", attempts=2)


async def test_a_clock_set_back_between_two_checks_delays_no_attempt(api: Api) -> None:
    """A worker that starts counts the pauses from now; those that are longer stay longer."""
    async with receiving(BUSY, BUSY) as receiver:
        async with delivering(api, WebhookSender(clock=api.clock, allow_loopback=True)):
            webhook = await create_webhook(api, receiver.url)
            await api.registered()
            await wait_for_delivery(api, webhook, "pending")
            advance_clock(api, 61)
            await wait_for_delivery(api, webhook, "pending", attempts=2)
        advance_clock(api, -86_400)
        async with delivering(api, WebhookSender(clock=api.clock, allow_loopback=True)):
            [due] = await eventually(lambda: _due_within(api, webhook, 240), "the pause counts from now")
            assert due > 60  # the second pause is longer than the first
            advance_clock(api, 241)
            await wait_for_delivery(api, webhook, "delivered", attempts=3)


async def _due_within(api: Api, webhook: Json, seconds: float) -> list[float]:
    """In how many seconds the next tries are, if none is further away than that."""
    now = datetime.fromtimestamp(api.clock() / 1_000, tz=UTC)
    pending = await deliveries(api, webhook, status="pending")
    waits = [(datetime.fromisoformat(each["next_attempt_at"]) - now).total_seconds() for each in pending]
    return waits if all(wait <= seconds for wait in waits) else []


def _seconds_to_next(delivery: Json) -> float:
    tried, following = (datetime.fromisoformat(delivery[name]) for name in ("last_attempt_at", "next_attempt_at"))
    return (following - tried).total_seconds()


async def test_after_six_attempts_a_delivery_is_failed_and_kept(api: Api) -> None:
    """And can be found as such, and replayed."""
    async with receiving(*[BUSY] * 6) as receiver, delivering(api):
        webhook = await create_webhook(api, receiver.url)
        await api.registered()
        for attempts in range(1, 6):
            await wait_for_delivery(api, webhook, "pending", attempts)
            advance_clock(api, 8 * 3_600)
        delivery = await wait_for_delivery(api, webhook, "failed", attempts=6)
        assert (delivery["next_attempt_at"], len(receiver.received)) == (None, 6)
        advance_clock(api, 24 * 3_600)
        assert await deliveries(api, webhook, status="failed") == [delivery]
        assert await deliveries(api, webhook, status="pending") == []
        path = f"/v1/webhooks/{webhook['id']}/deliveries/{delivery['id']}/replay"
        replayed = body(await api.back_end.post(path), 200)
        assert (replayed["id"], replayed["status"], replayed["attempts"]) == (delivery["id"], "pending", 0)
        await wait_for_delivery(api, webhook, "delivered")
        assert receiver.received[-1].headers["webhook-id"] == receiver.received[0].headers["webhook-id"]


async def test_a_receiver_gets_the_event_after_its_outage(api: Api) -> None:
    """The events of the meantime too."""
    async with receiving() as receiver:
        port, url = receiver.port, receiver.url
    async with delivering(api):
        webhook = await create_webhook(api, url)
        await api.registered("BP-1")
        delivery = await wait_for_delivery(api, webhook, "pending")
        assert delivery["error"] == "Could not connect: Connection refused."
        async with receiving(port=port) as receiver:
            await api.registered("BP-2")
            advance_clock(api, 61)
            serials = {each.event["data"]["serial_number"] for each in await receiver.got(2)}
            assert serials == {"BP-1", "BP-2"}


async def test_a_slow_receiver_does_not_delay_others(api: Api) -> None:
    """While one does not answer another gets everything; the slow one goes on where it was."""
    async with receiving() as slow, receiving() as quick, delivering(api):
        slow.open.clear()
        await create_webhook(api, slow.url, "device.registered")
        await create_webhook(api, quick.url, "device.registered")
        for number in range(10):
            await api.registered(f"BP-{number}")
        await quick.got(10)
        assert len(slow.received) == 1
        slow.open.set()
        came = await slow.got(10)
        assert [each.body for each in came] == [each.body for each in quick.received]


async def test_concurrent_deliveries_are_bounded(api: Api) -> None:
    """The rest waits for its turn."""
    async with receiving() as receiver, delivering(api, most_at_once=2):
        receiver.open.clear()
        for _ in range(5):
            await create_webhook(api, receiver.url, "device.registered")
        await api.registered()
        await receiver.got(2)
        async with receiving() as other:
            await create_webhook(api, other.url, "device.registered")
            await api.registered("BP-2")
            assert (len(receiver.received), other.received) == (2, [])
            receiver.open.set()
            await receiver.got(10)
            await other.got(1)


async def test_interrupted_deliveries_are_repeated(api: Api) -> None:
    """At least once: under the same id, by which a receiver knows it."""
    async with receiving() as receiver:
        receiver.open.clear()
        async with delivering(api):
            webhook = await create_webhook(api, receiver.url)
            await api.registered()
            await receiver.got(1)
        receiver.open.set()
        async with delivering(api):
            first, second = (await receiver.got(2))[:2]
            assert first.headers["webhook-id"] == second.headers["webhook-id"]
            await wait_for_delivery(api, webhook, "delivered")


async def test_a_disabled_webhook_gets_nothing(api: Api) -> None:
    """Not even what waits for another try, until it is switched on; a replay is a 409 that says so."""
    async with receiving(BUSY) as receiver, delivering(api):
        webhook = await create_webhook(api, receiver.url)
        path = f"/v1/webhooks/{webhook['id']}"
        await api.registered("BP-1")
        delivery = await wait_for_delivery(api, webhook, "pending")
        body(await api.back_end.patch(path, json={"enabled": False}), 200)
        advance_clock(api, 61)
        await api.registered("BP-2")
        answer = await api.back_end.post(f"{path}/deliveries/{delivery['id']}/replay")
        assert "PATCH" in error(answer, 409, "webhook_disabled")["message"]
        body(await api.back_end.patch(path, json={"enabled": True}), 200)
        await api.registered("BP-3")
        came = (await receiver.got(3))[1:]
        assert [each.event["data"]["serial_number"] for each in came] == ["BP-1", "BP-3"]


async def test_no_event_while_enabled_is_lost(api: Api) -> None:
    """250 events wait for a receiver that does not answer when the webhook is switched off, and on again."""
    async with receiving() as receiver, delivering(api):
        receiver.open.clear()
        webhook = await create_webhook(api, receiver.url)
        path = f"/v1/webhooks/{webhook['id']}"
        wanted = [f"BP-{number}" for number in range(250)]
        for serial in wanted:
            await api.registered(serial)
        await receiver.got(1)
        body(await api.back_end.patch(path, json={"enabled": False}), 200)
        await api.registered("meanwhile")
        body(await api.back_end.patch(path, json={"enabled": True}), 200)
        receiver.open.set()
        came = [each.event["data"]["serial_number"] for each in await receiver.got(len(wanted))]
        assert came == wanted


async def test_a_replay_during_an_attempt_is_made(api: Api) -> None:
    """It is sent once more when the try is over, although that succeeded."""
    async with receiving() as receiver, delivering(api):
        receiver.open.clear()
        webhook = await create_webhook(api, receiver.url)
        await api.registered()
        await receiver.got(1)
        [delivery] = await deliveries(api, webhook)
        path = f"/v1/webhooks/{webhook['id']}/deliveries/{delivery['id']}/replay"
        body(await api.back_end.post(path), 200)
        receiver.open.set()
        first, second = await receiver.got(2)
        assert first.headers["webhook-id"] == second.headers["webhook-id"]
        await wait_for_delivery(api, webhook, "delivered")


async def test_a_webhook_deleted_during_an_attempt_ends_it(api: Api) -> None:
    """That try is the last, and the worker goes on."""
    async with receiving(BUSY) as receiver, receiving() as other, delivering(api):
        receiver.open.clear()
        webhook = await create_webhook(api, receiver.url)
        await create_webhook(api, other.url)
        await api.registered("BP-1")
        await receiver.got(1)
        body(await api.back_end.delete(f"/v1/webhooks/{webhook['id']}"), 200)
        receiver.open.set()
        advance_clock(api, 61)
        await api.registered("BP-2")
        await other.got(2)
        assert len(receiver.received) == 1


async def test_projects_do_not_receive_each_others_events(api: Api) -> None:
    """A webhook gets what happens in its project alone."""
    stranger = api.as_(await api.another_key(project="two"))
    async with receiving() as ours, receiving() as theirs, delivering(api):
        webhook = await create_webhook(api, ours.url)
        body(await stranger.post("/v1/webhooks", json={"url": theirs.url}), 201)
        await api.registered("BP-1")
        body(await stranger.post("/v1/devices", json={"serial_number": "BP-2"}), 201)
        for receiver, serial in ((ours, "BP-1"), (theirs, "BP-2")):
            (request,) = await receiver.got(1)
            assert request.event["data"]["serial_number"] == serial
        delivery = await wait_for_delivery(api, webhook, "delivered")
        path = f"/v1/webhooks/{webhook['id']}/deliveries/{delivery['id']}/replay"
        error(await stranger.post(path), 404, "not_found")
        assert len(ours.received) == 1


async def test_a_delivery_belongs_to_its_webhook(api: Api) -> None:
    """Under another one of the same project its id is a 404, and no cursor."""
    async with receiving() as receiver, delivering(api):
        webhook, other = (
            await create_webhook(api, receiver.url),
            await create_webhook(api, receiver.url, "token.refreshed"),
        )
        await api.registered()
        delivery = await wait_for_delivery(api, webhook, "delivered")
        path = f"/v1/webhooks/{other['id']}/deliveries"
        message = error(await api.back_end.post(f"{path}/{delivery['id']}/replay"), 404, "not_found")["message"]
        assert f"GET {path}" in message
        error(await api.back_end.get(path, params={"cursor": delivery["id"]}), 400, "invalid_request")
        assert await deliveries(api, other) == []


async def test_deliveries_are_paged(api: Api) -> None:
    """Each once, those of the newest events first."""
    async with receiving() as receiver, delivering(api):
        webhook = await create_webhook(api, receiver.url)
        for number in range(5):
            await api.registered(f"BP-{number}")
        await receiver.got(5)
        await wait_for_delivery(api, webhook, "delivered")
        path = f"/v1/webhooks/{webhook['id']}/deliveries"
        page = body(await api.back_end.get(path, params={"limit": "3"}), 200)
        rest = body(await api.back_end.get(path, params={"limit": "3", "cursor": page["next_cursor"]}), 200)
        assert (page["has_more"], rest["has_more"], rest["next_cursor"]) == (True, False, None)
        came = [each.event["id"] for each in receiver.received]
        assert [each["event_id"] for each in page["data"] + rest["data"]] == came[::-1]


async def test_deliveries_are_logged_without_secrets(api: Api) -> None:
    """Which event went where, and why not."""
    with capture_logs() as logs:
        async with receiving(BUSY) as receiver, delivering(api):
            webhook = await create_webhook(api, receiver.url)
            await api.registered()
            await wait_for_delivery(api, webhook, "pending")
            advance_clock(api, 61)
            await wait_for_delivery(api, webhook, "delivered", attempts=2)
    told = {log["event"]: log for log in logs}
    assert (told["webhook.failed"]["attempt"], told["webhook.failed"]["status"]) == (1, 500)
    assert told["webhook.delivered"]["webhook_id"] == webhook["id"]
    assert webhook["secret"][:13] not in json.dumps(logs, default=str)
