"""SQL of device tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.core.credentials import DeviceToken, hash_secret, same_hash
from gateway.models.fields import MAX_NUMBER
from gateway.store import broker_entry_sql
from gateway.store.broker_sql import FIRST, serves
from gateway.store.records import columns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.store.transaction import Tx, View

_ENTRIES_AT_ONCE: Final = 5_000
_KEPT_PER_BINDING: Final = 8


class TokenRecord(NamedTuple):
    """A device token, with the id and the project of its device.

    ``mqtt_hash`` is ``None`` for a token from before MQTT passwords. ``state`` is a value of ``TokenState``.
    """

    id: int
    device_pk: int
    generation: int
    hash: bytes
    mqtt_hash: bytes | None
    broker_entry: str
    state: str
    grant_kid: str
    created_at: int
    first_used_at: int | None
    revoked_at: int | None
    device_id: str
    project_id: str

    def __repr__(self) -> str:
        """Return what may be logged: receipts are made with the hash."""
        return f"TokenRecord(id={self.id}, device_id={self.device_id!r}, state={self.state!r})"


class FetchingToken(NamedTuple):
    """What a command needs of the token that will fetch it: the binding, and the key that its device trusts."""

    generation: int
    grant_kid: str


_OF_DEVICE: Final = {"device_id": "d.id", "project_id": "d.project_id"}
_TOKENS: Final = f"""SELECT {columns(TokenRecord, "t", **_OF_DEVICE)}
    FROM tokens t JOIN devices d ON d.pk = t.device_pk"""  # noqa: S608 - our own columns


def insert(tx: Tx, device_pk: int, generation: int, token: DeviceToken, kid: str, *, state: str = "active") -> None:
    """Insert a token of this binding."""
    tx.run(
        """INSERT INTO tokens (device_pk, generation, hash, mqtt_hash, broker_entry, state, grant_kid, created_at)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?)""",
        device_pk,
        generation,
        token.hash,
        token.mqtt_hash,
        token.broker_entry,
        state,
        kid,
        tx.now,
    )


def by_secret(view: View, secret: str) -> TokenRecord | None:
    """Return the token with this secret, unless its device is deleted; revoked ones too.

    The look-up uses the hash of 200 random bits, so its timing reveals nothing. The comparison is constant in time all
    the same.
    """
    given = hash_secret(secret)
    token = view.record(TokenRecord, f"{_TOKENS} WHERE t.hash = ? AND d.deleted_at IS NULL", given)
    return token if token is not None and same_hash(token.hash, given) else None


def by_mqtt_password(view: View, device_id: str, password: str, *, broker: int = FIRST) -> TokenRecord | None:
    """Return the good token of this device with this MQTT password, or None; also where another broker is its home.

    A token from before MQTT passwords has no ``mqtt_hash``: the token itself is its password, until a refresh or a bind
    replaces it. Every comparison is constant in time.
    """
    given = hash_secret(password)
    tokens = view.records(
        TokenRecord,
        f"""{_TOKENS} WHERE d.id = ? AND d.deleted_at IS NULL AND t.state <> 'revoked' AND {serves("d.pk", "?")}
            ORDER BY t.id DESC""",
        *(device_id, broker),
    )
    good = [token for token in tokens if same_hash(_mqtt_hash(token), given)]
    return good[0] if good else None


def _mqtt_hash(token: TokenRecord) -> bytes:
    return token.hash if token.mqtt_hash is None else token.mqtt_hash


def without_mqtt_password(view: View) -> int:
    """Return how many devices have a token from before MQTT passwords as their newest good one."""
    found: int = view.value(
        """SELECT count(*) FROM tokens t JOIN devices d ON d.pk = t.device_pk
            WHERE t.mqtt_hash IS NULL AND t.state <> 'revoked' AND d.deleted_at IS NULL AND NOT EXISTS
            (SELECT 1 FROM tokens n WHERE n.device_pk = t.device_pk AND n.id > t.id AND n.state <> 'revoked')"""
    )
    return found


def changed_since(view: View, since: int) -> list[int]:
    """Return row numbers of devices with a token that was minted or revoked since then."""
    rows = view.all("SELECT DISTINCT device_pk FROM tokens WHERE created_at >= ?1 OR revoked_at >= ?1", since)
    return [row["device_pk"] for row in rows]


def live(view: View, device_pk: int) -> list[TokenRecord]:
    """Return the good tokens of the device, the newest first."""
    return view.records(
        TokenRecord, f"{_TOKENS} WHERE t.device_pk = ? AND t.state <> 'revoked' ORDER BY t.id DESC", device_pk
    )


def fetching(view: View, device_pk: int) -> FetchingToken | None:
    """Return the newest good token of the device, which will fetch its commands."""
    newest = live(view, device_pk)
    return FetchingToken(newest[0].generation, newest[0].grant_kid) if newest else None


def opens_something(view: View, device_id: str, *, broker: int = FIRST) -> bool:
    """Return whether the device has a good token, and this broker serves it."""
    row = view.one(
        f"""SELECT 1 FROM tokens t JOIN devices d ON d.pk = t.device_pk WHERE d.id = ? AND d.deleted_at IS NULL
            AND t.state <> 'revoked' AND {serves("d.pk", "?")} LIMIT 1""",  # noqa: S608 - a constant
        *(device_id, broker),
    )
    return row is not None


def receipt_keys(view: View, device_pk: int, generation: int, *, or_newer: bool = False) -> list[bytes]:
    """Return hashes of the device's tokens of this generation, revoked ones too.

    ``or_newer``: also of later generations.
    """
    rows = view.all(
        "SELECT hash FROM tokens WHERE device_pk = ? AND generation BETWEEN ? AND ? ORDER BY id DESC",
        device_pk,
        generation,
        MAX_NUMBER if or_newer else generation,
    )
    return [row["hash"] for row in rows]


def state(view: View, token_id: int) -> str | None:
    """Return the state of the token."""
    found: str | None = view.value("SELECT state FROM tokens WHERE id = ?", token_id)
    return found


def demote(tx: Tx, device_pk: int) -> None:
    """Make active tokens ``reset_only``: good for fetching the reset and nothing else."""
    tx.run("UPDATE tokens SET state = 'reset_only' WHERE device_pk = ? AND state = 'active'", device_pk)


def revoke(tx: Tx, device_pk: int) -> int:
    """Revoke every good token; return how many there were."""
    return tx.run(
        "UPDATE tokens SET state = 'revoked', revoked_at = ? WHERE device_pk = ? AND state <> 'revoked'",
        tx.now,
        device_pk,
    ).rowcount


def touch(tx: Tx, token_id: int) -> bool:
    """Record the first use of a token. Return False when it was used before, or is revoked."""
    cursor = tx.run(
        "UPDATE tokens SET first_used_at = ? WHERE id = ? AND first_used_at IS NULL AND state <> 'revoked'",
        tx.now,
        token_id,
    )
    return cursor.rowcount == 1


def by_row(view: View, token_id: int) -> TokenRecord:
    """Return a token by its row number."""
    token = view.record(TokenRecord, f"{_TOKENS} WHERE t.id = ?", token_id)
    if token is None:
        raise LookupError(f"no token {token_id}")
    return token


def revoke_older(tx: Tx, token: TokenRecord) -> int:
    """Revoke tokens of the device that are older than this one; return how many there were."""
    return tx.run(
        "UPDATE tokens SET state = 'revoked', revoked_at = ? WHERE device_pk = ? AND id < ? AND state <> 'revoked'",
        tx.now,
        token.device_pk,
        token.id,
    ).rowcount


def revoke_others(tx: Tx, token: TokenRecord) -> int:
    """Revoke all tokens of the device but this one; return how many there were."""
    return tx.run(
        "UPDATE tokens SET state = 'revoked', revoked_at = ? WHERE device_pk = ? AND id <> ? AND state <> 'revoked'",
        tx.now,
        token.device_pk,
        token.id,
    ).rowcount


def last_refreshed_at(view: View, token: TokenRecord) -> int | None:
    """Return when the newest token of this binding was minted by a refresh, or None if the bind minted it.

    At least two tokens of a binding are kept, so that a token that replaced another is recognised.
    """
    rows = view.all(
        "SELECT created_at FROM tokens WHERE device_pk = ? AND generation = ? ORDER BY id DESC LIMIT 2",
        token.device_pk,
        token.generation,
    )
    return rows[0]["created_at"] if len(rows) > 1 else None


def forget(tx: Tx, token: TokenRecord) -> None:
    """Keep the newest few tokens of this binding: a device may refresh for years.

    An older one was replaced several refreshes ago, and refreshes are at least a minute apart: no receipt made with it
    is under way any more.
    """
    tx.run(
        """DELETE FROM tokens WHERE device_pk = ?1 AND generation = ?2 AND state = 'revoked' AND id NOT IN
            (SELECT id FROM tokens WHERE device_pk = ?1 AND generation = ?2 ORDER BY id DESC LIMIT ?3)""",
        token.device_pk,
        token.generation,
        _KEPT_PER_BINDING,
    )


def broker_entries(view: View, broker: int = FIRST) -> list[tuple[str, str]]:
    """Return id and password entry of each device that may connect to this broker: of its newest good token."""
    return list(each_broker_entry(view, broker))


def each_broker_entry(view: View, broker: int) -> Iterator[tuple[str, str]]:
    """Yield the same in the order of the ids, some thousand at a time: all take 300 bytes each."""
    after, has_more = "", True
    while has_more:
        entries, has_more = broker_entry_sql.page(view, broker, after, _ENTRIES_AT_ONCE)
        yield from entries
        after = entries[-1][0] if entries else after
