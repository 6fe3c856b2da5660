"""Webhooks and deliveries in the registry: what is picked up, tried again, left out and dropped."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.domain import webhooks
from gateway.domain.webhooks import DeliveryOutcome
from gateway.errors import ConflictError, InvalidRequestError, NotFoundError
from gateway.models.webhooks import CreateWebhook, UpdateWebhook
from gateway.store import Context, Row, broker_sql, delivery_sql, event_sql, key_sql, webhook_sql
from tests.domain.support import ACTOR, NOON, World

GOOD = DeliveryOutcome(204)
BAD = DeliveryOutcome(500, error="The receiver answered 500.")
MINUTE = 60_000
DAY = 86_400_000


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A registry."""
    with World(tmp_path) as world:
        yield world


def created(world: World, *types: str, **body: Any) -> str:
    """A webhook for these types, or for all; its id."""
    asked = CreateWebhook(url="https://example.com/", events=list(types) or ["*"], **body)
    row, _ = world.run(webhooks.create, world.project_id, asked, ACTOR)
    return str(row.id)


def update(world: World, webhook_id: str, **changes: Any) -> webhook_sql.WebhookRecord:
    """Change a webhook."""
    return world.run(webhooks.update, world.project_id, webhook_id, UpdateWebhook.model_validate(changes), ACTOR)


def due(world: World, webhook_id: str) -> delivery_sql.DueDelivery | None:
    """The delivery that is due, after everything was picked up."""
    while world.run(webhooks.pick_up, webhook_id):
        pass
    return delivery_sql.due(world.view, webhook_id, world.now)


def sent(world: World, webhook_id: str, outcome: DeliveryOutcome = GOOD) -> list[str]:
    """Try everything that is due, with this outcome; the types of the events, in their order."""
    types = []
    while (delivery := due(world, webhook_id)) is not None:
        types.append(str(delivery.event_type))
        world.run(webhooks.settle, delivery, outcome)
    return types


def only(world: World) -> Row:
    """The one delivery there is."""
    (row,) = world.view.all("SELECT * FROM deliveries")
    return row


def test_new_events_are_queued_once_and_in_order(world: World) -> None:
    """What happened before the webhook is not its business; each event makes one delivery."""
    world.bound("SN-0")
    webhook_id = created(world)
    device_id = world.register("SN-1")
    world.bind(device_id)
    assert sent(world, webhook_id) == ["device.registered", "device.bound"]
    world.reset(device_id)
    assert sent(world, webhook_id) == ["device.unbound", "reset.requested"]
    assert sent(world, webhook_id) == []
    assert world.view.value("SELECT count(*) FROM deliveries") == 4


def test_only_subscribed_types_are_delivered(world: World) -> None:
    """The cursor passes the others by, also many of them."""
    webhook_id = created(world, "device.bound")
    for number in range(120):
        world.register(f"SN-{number}")
    world.bind(world.register("SN-X"))
    assert sent(world, webhook_id) == ["device.bound"]


def test_projects_do_not_see_each_other(world: World) -> None:
    """Neither the events nor the webhooks: a stranger's id is a 404."""
    webhook_id = created(world)
    other = world.run(key_sql.create_project, "two")
    stranger, _ = world.run(webhooks.create, other, CreateWebhook(url="https://example.com/"), ACTOR)
    world.register()
    assert sent(world, stranger.id) == []
    assert delivery_sql.with_work(world.view, world.now) == [webhook_id]
    with pytest.raises(NotFoundError, match="GET /v1/webhooks"):
        webhooks.require(world.view, other, webhook_id)


def test_the_schedule_of_the_contract(world: World) -> None:
    """At 0, 1 min, 5 min, 30 min, 2 h and 8 h, then it is marked failed and kept."""
    webhook_id = created(world)
    world.register()
    tried_at = []
    while True:
        delivery = due(world, webhook_id)
        assert delivery is not None
        tried_at.append((world.now - NOON) // 1_000)
        world.run(webhooks.settle, delivery, BAD)
        if only(world)["status"] != "pending":
            break
        assert due(world, webhook_id) is None
        world.now = delivery_sql.next_due(world.view, world.now) or 0
    assert tried_at == [0, 60, 300, 1_800, 7_200, 28_800]
    row = only(world)
    assert (row["status"], row["attempts"], row["response_status"], row["next_attempt_at"]) == ("failed", 6, 500, None)
    assert row["error"] == "The receiver answered 500."
    assert delivery_sql.next_due(world.view, world.now) is None


def test_after_a_downtime_attempts_are_not_made_up_at_once(world: World) -> None:
    """A gateway that was down for a day goes on with the distances of the schedule."""
    webhook_id = created(world)
    world.register()
    assert sent(world, webhook_id, BAD) == ["device.registered"]
    world.now += DAY
    assert sent(world, webhook_id, BAD) == ["device.registered"]
    assert only(world)["next_attempt_at"] == world.now + 4 * MINUTE


def test_a_failed_attempt_does_not_delay_the_next_event(world: World) -> None:
    """It is tried again when it is due; the next goes on meanwhile."""
    webhook_id = created(world)
    device_id = world.register()
    assert sent(world, webhook_id, BAD) == ["device.registered"]
    world.bind(device_id)
    assert sent(world, webhook_id) == ["device.bound"]
    world.now += MINUTE
    assert sent(world, webhook_id) == ["device.registered"]


def test_events_while_disabled_are_left_out(world: World) -> None:
    """What waited for another try goes on when it is switched on again."""
    webhook_id = created(world)
    device_id = world.register()
    assert sent(world, webhook_id, BAD) == ["device.registered"]
    update(world, webhook_id, enabled=False)
    world.now += DAY
    world.bind(device_id)
    assert sent(world, webhook_id) == []
    assert (delivery_sql.with_work(world.view, world.now), delivery_sql.next_due(world.view, 0)) == ([], None)
    update(world, webhook_id, enabled=True)
    world.unbind(device_id)
    assert sent(world, webhook_id) == ["device.registered", "token.revoked", "device.unbound"]


def test_events_before_the_disabling_are_kept(world: World) -> None:
    """However often it is switched: all that happened while it was on comes once and in order, and nothing else."""
    webhook_id = created(world)
    wanted = []
    for number in range(3):
        wanted += [f"on-{number}-{each}" for each in range(150)]
        for serial in wanted[-150:]:
            world.register(serial)
        update(world, webhook_id, enabled=False)
        world.register(f"off-{number}")
        assert due(world, webhook_id) is None
        update(world, webhook_id, enabled=False)
        update(world, webhook_id, enabled=True)
    assert told(world, webhook_id) == wanted
    assert world.view.value("SELECT count(*) FROM webhook_gaps") == 0


def told(world: World, webhook_id: str) -> list[str]:
    """Deliver everything; the serial numbers in the events, in their order."""
    serials = []
    while (delivery := due(world, webhook_id)) is not None:
        serials.append(json.loads(delivery.data)["serial_number"])
        world.run(webhooks.settle, delivery, GOOD)
    return serials


def test_a_webhook_created_disabled_starts_when_it_is_enabled(world: World) -> None:
    """What happened before that is left out."""
    webhook_id = created(world, enabled=False)
    world.register("before")
    assert told(world, webhook_id) == []
    update(world, webhook_id, enabled=True)
    world.register("after")
    assert told(world, webhook_id) == ["after"]


def test_events_that_wait_for_a_webhook_are_not_pruned(world: World) -> None:
    """Neither those that were not picked up, nor those of a delivery that is pending, however old; then they go."""
    webhook_id = created(world)
    world.register("SN-1")
    assert sent(world, webhook_id, BAD) == ["device.registered"]
    world.register("SN-2")
    update(world, webhook_id, enabled=False)
    world.register("SN-3")  # nobody waits for this one, nor for the creation of the webhook
    world.now += 400 * DAY
    assert world.run(event_sql.prune, world.now - 365 * DAY, 100) == 2
    assert world.run(webhooks.prune) == 0
    update(world, webhook_id, enabled=True)
    assert told(world, webhook_id) == ["SN-1", "SN-2"]
    world.now += 31 * DAY
    assert world.run(webhooks.prune) == 2
    assert world.run(event_sql.prune, world.now - 365 * DAY, 100) == 3  # with the change of the webhook


def test_events_that_were_not_published_are_not_pruned(world: World) -> None:
    """Where events go out over MQTT, too: up to how far that is they may go, the rest waits for the broker."""
    for number in range(3):
        world.register(f"SN-{number}")
    told = world.view.value("SELECT min(seq) FROM events")
    world.run(broker_sql.set_fact, broker_sql.FIRST, event_sql.FEED_CURSOR, str(told))
    world.now += 400 * DAY
    assert world.run(event_sql.prune, world.now - 365 * DAY, 100) == 1
    world.run(broker_sql.forget_fact, broker_sql.FIRST, event_sql.FEED_CURSOR)
    assert world.run(event_sql.prune, world.now - 365 * DAY, 100) == 2


def test_a_replay_during_an_attempt_is_not_lost(world: World) -> None:
    """Whatever comes of the try: it is told, and the event is sent again with all its tries."""
    webhook_id = created(world)
    world.register()
    for outcome in (GOOD, BAD):
        delivery = due(world, webhook_id)
        assert delivery is not None
        world.run(webhooks.replay, world.project_id, webhook_id, delivery.id)
        world.run(webhooks.settle, delivery, outcome)
        row = only(world)
        assert (row["status"], row["attempts"], row["next_attempt_at"]) == ("pending", 0, world.now)
        assert (row["response_status"], row["last_attempt_at"]) == (outcome.response_status, world.now)
    assert sent(world, webhook_id) == ["device.registered"]
    assert only(world)["status"] == "delivered"


def test_first_attempts_are_in_order_despite_clock_changes(world: World) -> None:
    """Also when it is set back between two of them, before anybody has noticed."""
    webhook_id = created(world)
    wanted = [f"SN-{number}" for number in range(6)]
    for serial in wanted:
        world.register(serial)
        world.run(webhooks.pick_up, webhook_id)
        world.now -= 3_600_000
    assert told(world, webhook_id) == wanted


def test_enabling_what_is_enabled_loses_nothing(world: World) -> None:
    """Only a webhook that was off starts from the newest event."""
    webhook_id = created(world)
    world.register()
    update(world, webhook_id, enabled=True, description="x")
    assert sent(world, webhook_id) == ["device.registered"]


def test_a_replay_has_all_its_attempts(world: World) -> None:
    """Whatever became of the delivery; a webhook that is off is a 409 that says what to do."""
    webhook_id = created(world)
    world.register()
    assert sent(world, webhook_id) == ["device.registered"]
    delivery_id = only(world)["id"]
    row = world.run(webhooks.replay, world.project_id, webhook_id, delivery_id)
    assert (row.status, row.attempts, row.next_attempt_at) == ("pending", 0, world.now)
    assert sent(world, webhook_id, BAD) == ["device.registered"]
    assert only(world)["next_attempt_at"] == world.now + MINUTE
    update(world, webhook_id, enabled=False)
    with pytest.raises(ConflictError, match="PATCH /v1/webhooks/") as caught:
        world.run(webhooks.replay, world.project_id, webhook_id, delivery_id)
    assert caught.value.code == "webhook_disabled"


def test_the_result_of_a_deleted_delivery_changes_nothing(world: World) -> None:
    """A webhook may be deleted while it is being tried."""
    webhook_id = created(world)
    world.register()
    delivery = due(world, webhook_id)
    assert delivery is not None
    world.run(webhooks.delete, world.project_id, webhook_id, ACTOR)
    world.run(webhooks.settle, delivery, GOOD)
    assert world.view.value("SELECT count(*) FROM deliveries") == 0
    assert world.run(webhooks.pick_up, webhook_id) is False


def test_a_rotated_secret_signs_no_longer_than_its_overlap(world: World) -> None:
    """Not a millisecond; nor when the clock goes back by more than the overlap; then it is gone from the registry."""
    webhook_id = created(world)

    def keys_at(now: int) -> int:
        row = webhooks.require(world.view, world.project_id, webhook_id)
        return len(webhooks.signing_keys(webhook_id, row, Context(clock=lambda: now)))

    first = webhooks.require(world.view, world.project_id, webhook_id).secret
    world.run(webhooks.rotate, world.project_id, webhook_id, MINUTE, ACTOR)
    began = world.now
    assert [keys_at(began + each) for each in (0, MINUTE - 1, MINUTE)] == [2, 2, 1]
    assert [keys_at(began - each) for each in (MINUTE, MINUTE + 1)] == [2, 1]
    assert world.run(webhooks.prune) == 0
    world.now += MINUTE
    assert world.run(webhooks.prune) == 1
    row = webhooks.require(world.view, world.project_id, webhook_id)
    assert (row.previous_secret, row.previous_expires_at) == (None, None)
    assert row.secret != first


def test_deliveries_are_deleted_by_age_and_with_their_events(world: World) -> None:
    """After the days of the setting, and with an event that is dropped; not while they are to be tried again."""
    webhook_id = created(world)
    world.register("SN-1")
    assert sent(world, webhook_id) == ["device.registered"]
    world.now += 20 * DAY
    world.register("SN-2")
    assert sent(world, webhook_id, BAD) == ["device.registered"]
    world.now += 11 * DAY
    assert (world.run(webhooks.prune), world.run(webhooks.prune)) == (1, 0)
    assert only(world)["status"] == "pending"
    assert world.run(event_sql.prune, world.now, 100) == 2  # with the creation of the webhook
    assert sent(world, webhook_id) == ["device.registered"]
    assert world.run(event_sql.prune, world.now, 100) == 1
    assert world.view.value("SELECT count(*) FROM deliveries") == 0
    world.register("SN-3")
    assert sent(world, webhook_id) == ["device.registered"]


def test_a_url_that_the_setting_forbids_is_refused_at_once(world: World) -> None:
    """At creation and at a change, naming the field and the setting."""
    webhook_id = created(world)
    for attempt in (
        lambda: world.run(webhooks.create, world.project_id, CreateWebhook(url="https://10.0.0.1/"), ACTOR),
        lambda: update(world, webhook_id, url="http://example.com/"),
    ):
        with pytest.raises(InvalidRequestError, match=r"^url: should .*webhook_allow_private") as caught:
            attempt()
        assert caught.value.details["field"] == "url"
    row = webhook_sql.find(world.view, world.project_id, webhook_id)
    assert row is not None
    assert row.url == "https://example.com/"


def test_webhooks_of_a_project_are_bounded(world: World) -> None:
    """One more is a 409 that says what to do."""
    for _ in range(webhooks.MOST_PER_PROJECT):
        created(world)
    with pytest.raises(ConflictError, match="DELETE /v1/webhooks") as caught:
        created(world)
    assert caught.value.code == "webhook_limit_reached"
