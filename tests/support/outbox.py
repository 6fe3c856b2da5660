"""What waits in the outbox."""

from gateway.store import View, outbox_depth_sql
from gateway.store.broker_sql import FIRST


def outbox_depth(view: View, broker: int = FIRST) -> tuple[int, int | None]:
    """The number of rows for this broker without mirrored state, and when the oldest is due."""
    return outbox_depth_sql.depth(outbox_depth_sql.waiting(view), broker)
