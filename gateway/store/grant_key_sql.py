"""SQL of the delivery of a signing key to bound devices, and of the key of a binding."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.store import key_sql, signing_key_sql
from gateway.store.records import columns
from gateway.store.signing_key_sql import SigningKeyRecord

if TYPE_CHECKING:
    from gateway.store.transaction import Tx, View

_DELIVERY: Final = "grant_key_delivery"
_ACTIVE: Final = "t.state = 'active' AND d.bound_at IS NOT NULL AND d.deleted_at IS NULL"
_NEWEST: Final = """(SELECT id FROM commands WHERE device_pk = d.pk AND type = 'set_grant_key' AND seq IS NOT NULL
    ORDER BY seq DESC LIMIT 1)"""


class DeliveryCursor(NamedTuple):
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


def delivery(view: View) -> DeliveryCursor | None:
    """Return the delivery that was started last. Return None before the first one, and after a stop."""
    text = key_sql.meta(view, _DELIVERY)
    return None if text is None else DeliveryCursor(**json.loads(text))


def set_delivery(tx: Tx, wanted: DeliveryCursor | None) -> None:
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


def retire(tx: Tx, kid: str) -> None:
    """Let no new binding use this key; one that is retired stays as it is."""
    tx.run("UPDATE signing_keys SET retired_at = ? WHERE kid = ? AND retired_at IS NULL", tx.now, kid)


def keys_to_keep(view: View) -> list[SigningKeyRecord]:
    """Return the signing keys that a good token relies on, and those that leaked."""
    return view.records(
        SigningKeyRecord,
        f"""SELECT {columns(SigningKeyRecord, "k")} FROM signing_keys k WHERE k.leaked_at IS NOT NULL
            OR EXISTS (SELECT 1 FROM tokens WHERE {signing_key_sql.RELY_ON_KEY}) ORDER BY k.kid""",  # noqa: S608 - ours
    )


def certifying(view: View) -> list[SigningKeyRecord]:
    """Return the keys that signed certificates, those of an earlier restore included."""
    return view.records(
        SigningKeyRecord,
        f"""SELECT {columns(SigningKeyRecord, "k")} FROM signing_keys k
            WHERE EXISTS (SELECT 1 FROM certificates WHERE kid = k.kid) OR k.kid IN ({view.dialect.names})
            ORDER BY k.kid""",  # noqa: S608 - ours
        key_sql.meta(view, signing_key_sql.CERTIFIED_BEFORE) or "[]",
    )


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
    rows = view.all(
        f"""SELECT t.grant_kid, c.status, {view.dialect.json_member("c.params", "kid")}, count(*)
            FROM devices d JOIN tokens t ON t.id =
                (SELECT max(id) FROM tokens WHERE device_pk = d.pk AND state = 'active')
            LEFT JOIN commands c ON c.id = {_NEWEST} WHERE {_ACTIVE} GROUP BY 1, 2, 3""",  # noqa: S608 - our own text
    )
    numbers = dict.fromkeys(Progress._fields, 0)
    for grant_kid, status, about, number in rows:
        numbers[_state(status, has_moved=grant_kid == kid, is_asked=about == kid)] += number
    return Progress(**numbers)


def _state(status: str | None, *, has_moved: bool, is_asked: bool) -> str:
    """Return which of the numbers counts a device whose newest command has this status."""
    is_open = status in ("pending", "delivered")
    if has_moved:
        return "confirming" if is_open else "confirmed"
    if is_asked and is_open:
        return "asked"
    return "kept" if is_asked and status == "failed" else "others"
