"""SQL of device tokens that replace another one, and were never used."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from gateway.store.broker_sql import FIRST, serves

if TYPE_CHECKING:
    from collections.abc import Collection

    from gateway.store.transaction import View


def replacing(view: View, broker: int = FIRST, of: Collection[str] | None = None) -> dict[str, int]:
    """Return device id and row number of each new token that was never used, while the one it replaces is good.

    These are the tokens of devices that this broker serves, or of the devices ``of`` among them. Without ``of`` it
    reads every token.
    """
    named = "" if of is None else f"AND d.id IN ({view.dialect.names})"
    rows = view.all(
        f"""SELECT d.id, t.id AS token_id FROM tokens t JOIN devices d ON d.pk = t.device_pk
            WHERE t.state <> 'revoked' AND t.first_used_at IS NULL AND d.deleted_at IS NULL AND EXISTS
            (SELECT 1 FROM tokens o WHERE o.device_pk = t.device_pk AND o.id < t.id AND o.state <> 'revoked')
            AND {serves("d.pk", "?")} {named} ORDER BY t.id""",  # noqa: S608 - constants
        *((broker,) if of is None else (broker, json.dumps(list(of)))),
    )
    return {row["id"]: row["token_id"] for row in rows}


def replacing_and_in_step(view: View, broker: int) -> dict[str, int]:
    """Return the same for all devices whose access is not marked at this broker."""
    marked = """SELECT d.id FROM outbox o JOIN devices d ON d.pk = o.device_pk
        WHERE o.broker_pk = ? AND o.kind = 'credential'"""
    waiting = {row["id"] for row in view.all(marked, broker)}
    return {device: token for device, token in replacing(view, broker).items() if device not in waiting}
