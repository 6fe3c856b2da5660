"""Operations on webhooks and their deliveries (contract, section 5)."""

from __future__ import annotations

import time
from typing import Final

from gateway.core import ids
from gateway.core.clock import SECOND_MS, to_rfc3339
from gateway.domain import webhooks
from gateway.http.callers import Authorization
from gateway.http.operation import AnyOperation, Operation, RequestContext
from gateway.http.paging import fitting
from gateway.http.resources.devices import bad_cursor
from gateway.http.responses import ApiResponse
from gateway.models import webhooks as webhooks_model
from gateway.models.events import Event
from gateway.models.fields import Empty
from gateway.store import Tx, View, delivery_sql, webhook_sql

TAG: Final = "webhooks"
TEST: Final = "webhook.test"
READ: Final = Authorization(scope="webhooks:read")
WRITE: Final = Authorization(scope="webhooks:write")
READ_EVENTS: Final = Authorization(scope="webhooks:read", also=("devices:read",))
"""Deliveries reveal what happens to devices."""
SEND_EVENTS: Final = Authorization(scope="webhooks:write", also=("devices:read",))
"""Who decides where events are sent can read them."""


async def create_webhook(call: RequestContext, body: webhooks_model.CreateWebhook) -> ApiResponse:
    """``POST /v1/webhooks``."""

    def create(tx: Tx) -> ApiResponse:
        row, secret = webhooks.create(tx, call.project_id, body, call.actor)
        return ApiResponse(webhooks_model.CreatedWebhook(**webhook_sql.fields(row), secret=secret), status=201)

    return await call.work.commit(create)


async def list_webhooks(call: RequestContext, query: webhooks_model.ListWebhooks) -> ApiResponse:
    """``GET /v1/webhooks``."""
    if query.cursor is not None and not ids.is_id(ids.WEBHOOK, query.cursor):
        raise bad_cursor()
    rows = await call.work.read(lambda view: webhook_sql.page(view, call.project_id, query))
    page, more = fitting(rows, query.limit, webhook_sql.to_model)
    return ApiResponse(webhooks_model.WebhookList(data=page, has_more=more, next_cursor=page[-1].id if more else None))


async def get_webhook(call: RequestContext, _: Empty) -> ApiResponse:
    """``GET /v1/webhooks/{webhook_id}``."""
    return ApiResponse(webhook_sql.to_model(await call.work.read(lambda view: _find(view, call))))


def _webhook_id(call: RequestContext) -> str:
    return call.request.path["webhook_id"]


def _find(view: View, call: RequestContext) -> webhook_sql.WebhookRecord:
    return webhooks.require(view, call.project_id, _webhook_id(call))


async def update_webhook(call: RequestContext, body: webhooks_model.UpdateWebhook) -> ApiResponse:
    """``PATCH /v1/webhooks/{webhook_id}``."""
    return await call.work.commit(
        lambda tx: ApiResponse(
            webhook_sql.to_model(webhooks.update(tx, call.project_id, _webhook_id(call), body, call.actor))
        )
    )


async def delete_webhook(call: RequestContext, _: Empty) -> ApiResponse:
    """``DELETE /v1/webhooks/{webhook_id}``."""
    return await call.work.commit(
        lambda tx: ApiResponse(
            webhook_sql.to_model(webhooks.delete(tx, call.project_id, _webhook_id(call), call.actor))
        )
    )


async def rotate_webhook_secret(call: RequestContext, body: webhooks_model.RotateWebhook) -> ApiResponse:
    """``POST /v1/webhooks/{webhook_id}/rotate``."""

    def rotate(tx: Tx) -> ApiResponse:
        webhook_id, overlap_ms = _webhook_id(call), body.overlap_seconds * SECOND_MS
        row, secret = webhooks.rotate(tx, call.project_id, webhook_id, overlap_ms, call.actor)
        return ApiResponse(webhooks_model.CreatedWebhook(**webhook_sql.fields(row), secret=secret))

    return await call.work.commit(rotate)


async def forget_previous_secret(call: RequestContext, _: Empty) -> ApiResponse:
    """``DELETE /v1/webhooks/{webhook_id}/previous-secret``."""
    return await call.work.commit(
        lambda tx: ApiResponse(
            webhook_sql.to_model(webhooks.forget_previous(tx, call.project_id, _webhook_id(call), call.actor))
        )
    )


async def send_test_event(call: RequestContext, _: Empty) -> ApiResponse:
    """``POST /v1/webhooks/{webhook_id}/test``: sends while the caller waits; nothing of it is stored."""
    webhook = await call.work.read(lambda view: _find(view, call))
    event, started = _test_event(call, webhook), time.perf_counter()
    keys = webhooks.signing_keys(webhook.id, webhook, call.services.store.context)
    outcome = await call.services.sender.send(webhook.url, keys, event)
    return ApiResponse(
        webhooks_model.WebhookTest(
            delivered=outcome.delivered,
            response_status=outcome.response_status,
            response_body=outcome.response_body,
            error=outcome.error,
            duration_ms=round((time.perf_counter() - started) * SECOND_MS),
            event=event,
        )
    )


def _test_event(call: RequestContext, webhook: webhook_sql.WebhookRecord) -> Event:
    context = call.services.store.context
    now = context.clock()
    return Event(
        id=ids.Ids(context.entropy).new(ids.EVENT, now),  # those of the registry belong to the writer
        type=TEST,
        created_at=to_rfc3339(now),
        data={"webhook_id": webhook.id, "actor": call.actor},
    )


async def list_deliveries(call: RequestContext, query: webhooks_model.ListDeliveries) -> ApiResponse:
    """``GET /v1/webhooks/{webhook_id}/deliveries``."""
    read = call.work.read if query.status is None else call.work.scan  # one status may be rare
    rows = await read(lambda view: _deliveries(view, call, query))
    page, more = fitting(rows, query.limit, delivery_sql.to_model)
    return ApiResponse(webhooks_model.DeliveryList(data=page, has_more=more, next_cursor=page[-1].id if more else None))


def _deliveries(
    view: View, call: RequestContext, query: webhooks_model.ListDeliveries
) -> list[delivery_sql.DeliveryRecord]:
    webhook = _find(view, call)
    if query.cursor is not None and delivery_sql.find(view, webhook.id, query.cursor) is None:
        raise bad_cursor()
    return delivery_sql.page(view, webhook.id, query)


async def replay_delivery(call: RequestContext, _: Empty) -> ApiResponse:
    """``POST /v1/webhooks/{webhook_id}/deliveries/{delivery_id}/replay``."""
    webhook_id, delivery_id = _webhook_id(call), call.request.path["delivery_id"]
    return await call.work.commit(
        lambda tx: ApiResponse(delivery_sql.to_model(webhooks.replay(tx, call.project_id, webhook_id, delivery_id)))
    )


OPERATIONS: Final[tuple[AnyOperation, ...]] = (
    Operation(
        method="POST",
        path="/v1/webhooks",
        summary="Create a webhook",
        description="What happens from now on is sent to `url` as a POST of the event as JSON, at least once, signed "
        "with the `secret` that is shown this once. Any 2xx within 30 s is success; else it is tried again after "
        "1 min, 5 min, 30 min, 2 h and 8 h, and then marked `failed`. Redirects are not followed. Private addresses "
        "are refused unless the setting `webhook_allow_private` is on, the gateway's own machine unless "
        "`webhook_allow_loopback` is. A project may have 50. Who decides where events are sent can read them, so the "
        "key also needs `devices:read`.",
        tag=TAG,
        access=SEND_EVENTS,
        takes=webhooks_model.CreateWebhook,
        handler=create_webhook,
        answers={201: webhooks_model.CreatedWebhook},
        conflicts=("webhook_limit_reached",),
    ),
    Operation(
        method="GET",
        path="/v1/webhooks",
        summary="List webhooks",
        description="The webhooks of the project, newest first. The page after this one starts at `next_cursor`.",
        tag=TAG,
        access=READ,
        takes=webhooks_model.ListWebhooks,
        handler=list_webhooks,
        answers={200: webhooks_model.WebhookList},
    ),
    Operation(
        method="GET",
        path="/v1/webhooks/{webhook_id}",
        summary="Get a webhook",
        description="Its secret is not included: it is shown at creation alone.",
        tag=TAG,
        access=READ,
        takes=Empty,
        handler=get_webhook,
        answers={200: webhooks_model.Webhook},
    ),
    Operation(
        method="PATCH",
        path="/v1/webhooks/{webhook_id}",
        summary="Change a webhook",
        description="What is left out stays. While `enabled` is false nothing is sent; what happens then is left out, "
        "and what happened before, or waited for another try, goes on when it is switched on again.",
        tag=TAG,
        access=SEND_EVENTS,
        takes=webhooks_model.UpdateWebhook,
        handler=update_webhook,
        answers={200: webhooks_model.Webhook},
    ),
    Operation(
        method="DELETE",
        path="/v1/webhooks/{webhook_id}",
        summary="Delete a webhook",
        description="Nothing is sent any more, and the record of its deliveries goes. Answers what it was.",
        tag=TAG,
        access=WRITE,
        takes=Empty,
        handler=delete_webhook,
        answers={200: webhooks_model.Webhook},
    ),
    Operation(
        method="POST",
        path="/v1/webhooks/{webhook_id}/rotate",
        summary="Rotate the secret of a webhook",
        description="Answers a new `secret`, shown this once. For `overlap_seconds` (a day, at most 30 days) both "
        "secrets sign: `webhook-signature` and `X-Bota-Signature` carry two signatures each, that of the new secret "
        "first. A secret from before an earlier rotation is dead at once. Afterwards only the new one signs.",
        tag=TAG,
        access=WRITE,
        takes=webhooks_model.RotateWebhook,
        handler=rotate_webhook_secret,
        answers={200: webhooks_model.CreatedWebhook},
    ),
    Operation(
        method="DELETE",
        path="/v1/webhooks/{webhook_id}/previous-secret",
        summary="End the overlap of a rotation",
        description="The secret before the last rotation signs nothing from now on. Without an overlap nothing "
        "changes.",
        tag=TAG,
        access=WRITE,
        takes=Empty,
        handler=forget_previous_secret,
        answers={200: webhooks_model.Webhook},
    ),
    Operation(
        method="POST",
        path="/v1/webhooks/{webhook_id}/test",
        summary="Test a webhook",
        description="Sends an event of the type `webhook.test` now, also while the webhook is switched off, and "
        "answers what came back, within some 30 s. It is tried once and not kept.",
        tag=TAG,
        access=WRITE,
        takes=Empty,
        handler=send_test_event,
        answers={200: webhooks_model.WebhookTest},
    ),
    Operation(
        method="GET",
        path="/v1/webhooks/{webhook_id}/deliveries",
        summary="List the deliveries of a webhook",
        description="Those of the newest events first; they are kept for 30 days (setting `delivery_history_days`). "
        "The page after this one starts at `next_cursor`.",
        tag=TAG,
        access=READ_EVENTS,
        takes=webhooks_model.ListDeliveries,
        handler=list_deliveries,
        answers={200: webhooks_model.DeliveryList},
    ),
    Operation(
        method="POST",
        path="/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/replay",
        summary="Replay a delivery",
        description="Sends the event again, at once and with all its tries, whatever became of it before. Its "
        "`webhook-id` is the same.",
        tag=TAG,
        access=SEND_EVENTS,
        takes=Empty,
        handler=replay_delivery,
        answers={200: webhooks_model.Delivery},
        conflicts=("webhook_disabled",),
    ),
)
