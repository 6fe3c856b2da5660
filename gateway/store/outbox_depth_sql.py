"""SQL that counts what waits in the outbox, for ``/ready`` and the metrics, up to a limit.

After a first start of a large fleet a million rows wait. Load balancers and Prometheus ask again and again. So a count
reads MOST_COUNTED rows of each broker and kind at most. For commands of a person :mod:`gateway.store.gauge_sql` counts
all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.store.outbox_sql import COMMAND, CREDENTIAL, MIRROR, TOPIC

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.store.transaction import View

MOST_COUNTED: Final = 10_000
"""The largest number: it means that so many rows wait, or more."""
_FIRST_ROWS: Final = 100
"""Rows among which the oldest is looked for. They are in the order of their numbers, or of their turns. So it is nearly
always the first of them; a clock that was set back, or a second mark, can put a younger one in front."""

KINDS: Final = (COMMAND, CREDENTIAL, TOPIC, MIRROR)
_OF_BOTH: Final = "o.broker_pk = b.pk AND o.kind = k.kind"
_KINDS: Final = " UNION ALL ".join(f"SELECT '{kind}' AS kind" for kind in KINDS)
_IN_ORDER: Final = "ORDER BY o.not_before, o.seq"
"""The order of the index ``outbox_due`` for a broker and a kind. PostgreSQL does not know how many rows a kind has.
Without an order it would read the table, and might pass all rows of other kinds. No other index has this order."""
_COUNTED: Final = f"""SELECT count(*) FROM (SELECT 1 FROM outbox o WHERE {_OF_BOTH}
    {_IN_ORDER} LIMIT {MOST_COUNTED}) AS counted"""  # noqa: S608 - constants
_AT_ONCE: Final = f"""SELECT {{due}} AS due FROM outbox o WHERE {_OF_BOTH} AND o.not_before <= 0
    {_IN_ORDER} LIMIT {_FIRST_ROWS}"""  # noqa: S608 - constants
_LATER: Final = f"""SELECT {{due}} AS due FROM outbox o WHERE {_OF_BOTH} AND o.not_before > 0
    {_IN_ORDER} LIMIT {_FIRST_ROWS}"""  # noqa: S608 - constants
_WAITING: Final = f"""SELECT b.pk, k.kind, ({_COUNTED}),
    (SELECT min(due) FROM ({_AT_ONCE}) AS at_once), (SELECT min(due) FROM ({_LATER}) AS later)
    FROM brokers b CROSS JOIN ({_KINDS}) AS k"""  # noqa: S608 - constants


class Waiting(NamedTuple):
    """What waits for a broker: number of rows of a kind, MOST_COUNTED at most, and when the oldest was or will be due.

    Times are milliseconds since the epoch.
    """

    broker_pk: int
    kind: str
    rows: int
    oldest_at: int


def waiting(view: View) -> list[Waiting]:
    """Return what waits for each broker by kind, without what does not wait."""
    due = view.dialect.greatest("o.created_at", "o.not_before")
    return [
        Waiting(broker, kind, rows, min(each for each in (at_once, later) if each is not None))
        for broker, kind, rows, at_once, later in view.all(_WAITING.format(due=due))
        if rows
    ]


def depth(found: Iterable[Waiting], broker: int) -> tuple[int, int | None]:
    """Return how many rows wait for this broker, MOST_COUNTED at most, and when the oldest is due.

    Mirrored state does not count: it follows once a second.
    """
    rows = [each for each in found if each.broker_pk == broker and each.kind != MIRROR]
    return _sum(rows), min((each.oldest_at for each in rows), default=None)


def by_broker(found: Sequence[Waiting]) -> dict[int, int]:
    """Return how many rows of all kinds wait for each broker, MOST_COUNTED at most."""
    return {
        broker: _sum(each for each in found if each.broker_pk == broker)
        for broker in {each.broker_pk for each in found}
    }


def by_kind(found: Sequence[Waiting]) -> list[tuple[str, int, int]]:
    """Return by kind how many rows wait for all brokers, MOST_COUNTED at most, and when the oldest is due."""
    kinds = ((kind, [each for each in found if each.kind == kind]) for kind in KINDS)
    return [(kind, _sum(rows), min(each.oldest_at for each in rows)) for kind, rows in kinds if rows]


def _sum(found: Iterable[Waiting]) -> int:
    return min(MOST_COUNTED, sum(each.rows for each in found))
