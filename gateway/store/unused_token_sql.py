"""SQL of device tokens that replace another one, and were never used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.store.broker_sql import FIRST, serves

if TYPE_CHECKING:
    from gateway.store.transaction import View


def replacing(view: View, broker: int = FIRST) -> dict[str, int]:
    """Return device id and row number of each new token that was never used, while the one it replaces is good.

    These are the tokens of devices that this broker serves.
    """
    rows = view.all(
        f"""SELECT d.id, t.id AS token_id FROM tokens t JOIN devices d ON d.pk = t.device_pk
            WHERE t.state <> 'revoked' AND t.first_used_at IS NULL AND d.deleted_at IS NULL AND EXISTS
            (SELECT 1 FROM tokens o WHERE o.device_pk = t.device_pk AND o.id < t.id AND o.state <> 'revoked')
            AND {serves("d.pk", "?")} ORDER BY t.id""",  # noqa: S608 - a constant
        broker,
    )
    return {row["id"]: row["token_id"] for row in rows}
