"""Operations on a person's data: the export and the erasure (contract, section 7)."""

from __future__ import annotations

from typing import Final

from gateway.core import ids
from gateway.domain import erasures, person_export
from gateway.domain.person_export import PersonExport
from gateway.errors import InvalidRequestError
from gateway.http.callers import READ, WRITE
from gateway.http.operation import AnyOperation, Operation, RequestContext
from gateway.http.responses import ApiResponse, Stream
from gateway.models.end_users import Erasure, ErasureCounts, Mention
from gateway.models.fields import Empty
from gateway.store.person_sql import Mention as FoundMention

TAG: Final = "end users"
MEDIA_TYPE: Final = "application/x-ndjson"
WAIT_SECONDS: Final = 10.0
"""How long the answer of an erasure waits for its end."""
_MENTIONS_NAMED: Final = 100
_RUNNING: Final = 202


async def export_end_user(call: RequestContext, _: Empty) -> Stream:
    """``GET /v1/end-users/{end_user_id}/data``."""
    end_user_id = _end_user_id(call)
    export = PersonExport(call.work.scan, call.project_id, end_user_id, call.services.store.context.clock())
    return Stream(
        export.parts(),
        MEDIA_TYPE,
        {"Content-Disposition": f'attachment; filename="{end_user_id}.ndjson"', "X-Accel-Buffering": "no"},
    )


async def erase_end_user(call: RequestContext, _: Empty) -> ApiResponse:
    """``DELETE /v1/end-users/{end_user_id}``: answered when it is done, or after a few seconds."""
    end_user_id, store = _end_user_id(call), call.services.store
    open_resets = await call.work.read(lambda view: erasures.open_resets(view, call.project_id, end_user_id))
    accepted = await store.write(lambda tx: erasures.accept(tx, call.project_id, end_user_id, call.actor))
    erased = await call.services.erasures.wait(accepted, WAIT_SECONDS)
    mentions = await _mentions(call, end_user_id) if erased.finished else []
    answer = Erasure(
        status="finished" if erased.finished else "running",
        pseudonym=erased.pseudonym,
        counts=ErasureCounts.model_validate({**dict.fromkeys(erasures.COUNTS, 0), **erased.counts}),
        open_resets=open_resets,
        mentions=[Mention(field=each.field, id=each.id) for each in mentions[:_MENTIONS_NAMED]],
        has_more_mentions=len(mentions) > _MENTIONS_NAMED,
    )
    return ApiResponse(answer, status=200 if erased.finished else _RUNNING)


async def _mentions(call: RequestContext, end_user_id: str) -> list[FoundMention]:
    found: list[FoundMention] = []
    async for some in person_export.mentions(call.work.scan, call.project_id, end_user_id):
        found += some
        if len(found) > _MENTIONS_NAMED:
            break
    return found


def _end_user_id(call: RequestContext) -> str:
    end_user_id = call.request.path["end_user_id"]
    if not ids.is_id(ids.END_USER, end_user_id):
        raise InvalidRequestError(
            "end_user_id: should be the id of an end user as you gave it at the bind: 'eu_' and 1 to 64 of A-Z, a-z, "
            "0-9.",
            details={"field": "end_user_id"},
        )
    return end_user_id


OPERATIONS: Final[tuple[AnyOperation, ...]] = (
    Operation(
        method="GET",
        path="/v1/end-users/{end_user_id}/data",
        summary="Export everything kept about a person",
        description="Lines of JSON (NDJSON), each with its `kind`. The first is `end_user`. Then come `binding` with "
        "its times, `device`, `event`, `command`, `heartbeat` (newest first in each binding), `refused_message` and "
        "`mention`. The last is `end`, with the counts. **Without it the export is not complete**: the connection "
        "broke, or an erasure of the person was accepted meanwhile. Events are those that happened to a device during "
        "a binding, and those that name the person. A `mention` is a place that you or a device filled, such as "
        "metadata. A "
        "person of whom nothing is known gets an export with counts of 0: that is a valid answer to a request for "
        "access. Several million heartbeats take minutes and no memory. It counts as an event stream of the key.",
        tag=TAG,
        access=READ,
        takes=Empty,
        handler=export_end_user,
        answers={200: None},
        media_type=MEDIA_TYPE,
    ),
    Operation(
        method="DELETE",
        path="/v1/end-users/{end_user_id}",
        summary="Erase a person",
        description="Erases what is kept about the person; the counts say what. In events a random pseudonym replaces "
        "the id. 409 `device_bound` names the devices that are still bound: reset or unbind them first. An open reset "
        "does not keep the person from being erased; `open_resets` names its device. The request is answered when all "
        "is done. After 10 s it is answered with 202 and `running`: the erasure is accepted then and the gateway "
        "finishes it, also after a restart. Send the request again to wait for its end. A person of whom nothing is "
        "kept gets counts of 0. `mentions` lists places that name the person and that only you can change, such as "
        "metadata: nothing is guessed there. Backups made before still hold the person. 'gateway docs compliance' says "
        "what to do after a restore.",
        tag=TAG,
        access=WRITE,
        takes=Empty,
        handler=erase_end_user,
        answers={200: Erasure, 202: Erasure},
        conflicts=("device_bound",),
    ),
)
