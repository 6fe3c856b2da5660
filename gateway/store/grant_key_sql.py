"""SQL of the delivery of a signing key to bound devices, and of the key of a binding."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.store import key_sql
from gateway.store.records import columns

if TYPE_CHECKING:
    from gateway.store.transaction import Tx, View

_DELIVERY: Final = "grant_key_delivery"
_ACTIVE: Final = "t.state = 'active' AND d.bound_at IS NOT NULL AND d.deleted_at IS NULL"
_NEWEST: Final = """(SELECT id FROM commands WHERE device_pk = d.pk AND type = 'set_grant_key' AND seq IS NOT NULL
    ORDER BY seq DESC LIMIT 1)"""


class Delivery(NamedTuple):
    """A delivery: the key, and the row number of the last device that was asked. ``after`` is None at its end."""

    kid: str
    after: int | None


class DeviceToAsk(NamedTuple):
    """A bound device that obeys an older key: its row number, and that key."""

    pk: int
    grant_kid: str


class Progress(NamedTuple):
    """Numbers of bound devices.

    ``confirmed`` obey this key alone. ``confirming`` obey it, and the old one until the next command. ``asked`` have
    not answered. ``kept`` answered that they keep their key. ``others`` were not asked for this key.
    """

    confirmed: int
    confirming: int
    asked: int
    kept: int
    others: int


def delivery(view: View) -> Delivery | None:
    """Return the delivery that was started last. Return None before the first one, and after a stop."""
    text = key_sql.meta(view, _DELIVERY)
    return None if text is None else Delivery(**json.loads(text))


def set_delivery(tx: Tx, wanted: Delivery | None) -> None:
    """Store how far the delivery is; None ends it."""
    if wanted is None:
        key_sql.forget_meta(tx, _DELIVERY)
    else:
        key_sql.set_meta(tx, _DELIVERY, json.dumps(wanted._asdict()))


def to_ask(view: View, kid: str, after: int, limit: int) -> list[DeviceToAsk]:
    """Return the next bound devices, by row number, that obey another key than this one; ``limit`` at most.

    Of two good tokens of a binding both have the same key.
    """
    return view.records(
        DeviceToAsk,
        f"""SELECT {columns(DeviceToAsk, "d", grant_kid="max(t.grant_kid)")}
            FROM devices d JOIN tokens t ON t.device_pk = d.pk
            WHERE d.pk > ? AND {_ACTIVE} AND t.grant_kid <> ? GROUP BY d.pk ORDER BY d.pk LIMIT ?""",  # noqa: S608 - ours
        *(after, kid, limit),
    )


def set_grant_kid(tx: Tx, device_pk: int, kid: str) -> None:
    """Sign for this device's binding with this key from now on."""
    tx.run("UPDATE tokens SET grant_kid = ? WHERE device_pk = ? AND state <> 'revoked'", kid, device_pk)


def set_grant(tx: Tx, command_id: str, grant: str) -> None:
    """Store a new grant of a command with the same ``seq``."""
    tx.run("UPDATE commands SET grant_token = ? WHERE id = ?", grant, command_id)


def set_leaked(tx: Tx, kid: str) -> None:
    """Mark that others know this key."""
    tx.run("UPDATE signing_keys SET leaked_at = ? WHERE kid = ? AND leaked_at IS NULL", tx.now, kid)


def announced_by(view: View, kid: str) -> list[str]:
    """Return the ids of open commands ``set_grant_key`` to devices that obey this key."""
    rows = view.all(
        """SELECT DISTINCT c.id FROM commands c JOIN tokens t ON t.device_pk = c.device_pk
            WHERE c.type = 'set_grant_key' AND c.status IN ('pending', 'delivered')
            AND t.state <> 'revoked' AND t.grant_kid = ? ORDER BY c.id""",
        kid,
    )
    return [row["id"] for row in rows]


def progress(view: View, kid: str) -> Progress:
    """Return how far the bound devices are with this key."""
    row = view.one(
        f"""SELECT count(*) FILTER (WHERE moved AND NOT is_open), count(*) FILTER (WHERE moved AND is_open),
                count(*) FILTER (WHERE NOT moved AND is_open AND about_it),
                count(*) FILTER (WHERE NOT moved AND NOT is_open AND about_it AND status = 'failed'),
                count(*) FILTER (WHERE NOT moved AND NOT (about_it AND (is_open OR status = 'failed')))
            FROM (SELECT max(t.grant_kid) = ?1 AS moved, c.status AS status,
                    coalesce(c.status IN ('pending', 'delivered'), 0) AS is_open,
                    coalesce(json_extract(c.params, '$.kid') = ?1, 0) AS about_it
                FROM devices d JOIN tokens t ON t.device_pk = d.pk LEFT JOIN commands c ON c.id = {_NEWEST}
                WHERE {_ACTIVE} GROUP BY d.pk)""",  # noqa: S608 - our own text
        kid,
    )
    return Progress(*(int(each) for each in (row or (0, 0, 0, 0, 0))))
