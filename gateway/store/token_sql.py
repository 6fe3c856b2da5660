"""SQL of device tokens and of the keys that sign grants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.core.credentials import DeviceToken, hash_secret, same_hash
from gateway.models import model

if TYPE_CHECKING:
    from gateway.store.sqlite.connection import Row, Tx, View

_KEPT_PER_BINDING: Final = 8


def insert(tx: Tx, device_pk: int, generation: int, token: DeviceToken, kid: str, *, state: str = "active") -> None:
    """A new token of this binding."""
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


def by_secret(view: View, secret: str) -> Row | None:
    """The token with this secret, its device's id, project and row number; revoked ones too.

    The look-up goes by the hash of 200 random bits, so its timing tells nothing; the comparison is constant in time
    all the same.
    """
    given = hash_secret(secret)
    row = view.one(
        """SELECT t.*, d.id AS device_id, d.project_id FROM tokens t JOIN devices d ON d.pk = t.device_pk
            WHERE t.hash = ? AND d.deleted_at IS NULL""",
        given,
    )
    return row if row is not None and same_hash(row["hash"], given) else None


def by_mqtt_password(view: View, device_id: str, password: str) -> Row | None:
    """The token of this device that is not revoked and has this MQTT password; ``None`` when there is none.

    A token from before MQTT passwords has no ``mqtt_hash``: the token itself is its password, until a refresh or a bind
    replaces it. Every comparison is constant in time.
    """
    given = hash_secret(password)
    rows = view.all(
        """SELECT t.* FROM devices d JOIN tokens t ON t.device_pk = d.pk
            WHERE d.id = ? AND d.deleted_at IS NULL AND t.state <> 'revoked' ORDER BY t.id DESC""",
        device_id,
    )
    good = [row for row in rows if same_hash(_mqtt_hash(row), given)]
    return good[0] if good else None


def _mqtt_hash(token: Row) -> bytes:
    stored: bytes | None = token["mqtt_hash"]
    former: bytes = token["hash"]
    return former if stored is None else stored


def without_mqtt_password(view: View) -> int:
    """How many devices have a token from before MQTT passwords as their newest one that is not revoked."""
    found: int = view.value(
        """SELECT count(*) FROM tokens t JOIN devices d ON d.pk = t.device_pk
            WHERE t.mqtt_hash IS NULL AND t.state <> 'revoked' AND d.deleted_at IS NULL AND NOT EXISTS
            (SELECT 1 FROM tokens n WHERE n.device_pk = t.device_pk AND n.id > t.id AND n.state <> 'revoked')"""
    )
    return found


def live(view: View, device_pk: int) -> list[Row]:
    """Tokens of the device that are not revoked, the newest first."""
    return view.all("SELECT * FROM tokens WHERE device_pk = ? AND state <> 'revoked' ORDER BY id DESC", device_pk)


def opens_something(view: View, device_id: str) -> bool:
    """Whether the device has a token that is not revoked."""
    row = view.one(
        """SELECT 1 FROM tokens t JOIN devices d ON d.pk = t.device_pk
            WHERE d.id = ? AND d.deleted_at IS NULL AND t.state <> 'revoked' LIMIT 1""",
        device_id,
    )
    return row is not None


def receipt_keys(view: View, device_pk: int, generation: int, *, or_newer: bool = False) -> list[bytes]:
    """Hashes of the device's tokens of this generation, revoked ones too; with ``or_newer`` also of later ones."""
    rows = view.all(
        "SELECT hash FROM tokens WHERE device_pk = ? AND generation BETWEEN ? AND ? ORDER BY id DESC",
        device_pk,
        generation,
        model.MAX_NUMBER if or_newer else generation,
    )
    return [row["hash"] for row in rows]


def state(view: View, token_id: int) -> str | None:
    """What the token opens now."""
    found: str | None = view.value("SELECT state FROM tokens WHERE id = ?", token_id)
    return found


def demote(tx: Tx, device_pk: int) -> None:
    """Active tokens become ``reset_only``: good for fetching the reset and nothing else."""
    tx.run("UPDATE tokens SET state = 'reset_only' WHERE device_pk = ? AND state = 'active'", device_pk)


def revoke(tx: Tx, device_pk: int) -> int:
    """Every token that still opens something is revoked; how many there were."""
    return tx.run(
        "UPDATE tokens SET state = 'revoked', revoked_at = ? WHERE device_pk = ? AND state <> 'revoked'",
        tx.now,
        device_pk,
    ).rowcount


def touch(tx: Tx, token_id: int) -> bool:
    """Note the first use of a token; ``False`` when it was used before, or is revoked."""
    cursor = tx.run(
        "UPDATE tokens SET first_used_at = ? WHERE id = ? AND first_used_at IS NULL AND state <> 'revoked'",
        tx.now,
        token_id,
    )
    return cursor.rowcount == 1


def by_row(view: View, token_id: int) -> Row:
    """A token by its row number."""
    row = view.one("SELECT * FROM tokens WHERE id = ?", token_id)
    if row is None:
        raise LookupError(f"no token {token_id}")
    return row


def revoke_older(tx: Tx, token: Row) -> int:
    """Tokens of the device that were minted before this one open nothing any more; how many there were."""
    return tx.run(
        "UPDATE tokens SET state = 'revoked', revoked_at = ? WHERE device_pk = ? AND id < ? AND state <> 'revoked'",
        tx.now,
        token["device_pk"],
        token["id"],
    ).rowcount


def revoke_others(tx: Tx, token: Row) -> int:
    """All tokens of the device but this one open nothing any more; how many there were."""
    return tx.run(
        "UPDATE tokens SET state = 'revoked', revoked_at = ? WHERE device_pk = ? AND id <> ? AND state <> 'revoked'",
        tx.now,
        token["device_pk"],
        token["id"],
    ).rowcount


def last_refreshed_at(view: View, token: Row) -> int | None:
    """When the newest token of this binding was minted by a refresh; ``None`` if the bind minted it.

    At least two tokens of a binding are kept, so that one which replaced another is known as such.
    """
    rows = view.all(
        "SELECT created_at FROM tokens WHERE device_pk = ? AND generation = ? ORDER BY id DESC LIMIT 2",
        token["device_pk"],
        token["generation"],
    )
    return rows[0]["created_at"] if len(rows) > 1 else None


def forget(tx: Tx, token: Row) -> None:
    """Keep the newest few tokens of this binding: a device may refresh for years.

    An older one was replaced several refreshes ago, and a device has one minute at least from one to the next: no
    receipt made with it is under way any more.
    """
    tx.run(
        """DELETE FROM tokens WHERE device_pk = ?1 AND generation = ?2 AND state = 'revoked' AND id NOT IN
            (SELECT id FROM tokens WHERE device_pk = ?1 AND generation = ?2 ORDER BY id DESC LIMIT ?3)""",
        token["device_pk"],
        token["generation"],
        _KEPT_PER_BINDING,
    )


def broker_entries(view: View) -> list[tuple[str, str]]:
    """Device id and password entry of each device that may connect: its newest token that is not revoked."""
    rows = view.all(
        """SELECT d.id, t.broker_entry FROM tokens t JOIN devices d ON d.pk = t.device_pk
            WHERE t.state <> 'revoked' AND d.deleted_at IS NULL
            AND t.id = (SELECT max(id) FROM tokens WHERE device_pk = t.device_pk AND state <> 'revoked')
            ORDER BY d.id"""
    )
    return [(row["id"], row["broker_entry"]) for row in rows]


def replacing(view: View) -> dict[str, int]:
    """Device id and row number of each new token that was never used, while the one it replaces is good still."""
    rows = view.all(
        """SELECT d.id, t.id AS token_id FROM tokens t JOIN devices d ON d.pk = t.device_pk
            WHERE t.state <> 'revoked' AND t.first_used_at IS NULL AND d.deleted_at IS NULL AND EXISTS
            (SELECT 1 FROM tokens o WHERE o.device_pk = t.device_pk AND o.id < t.id AND o.state <> 'revoked')
            ORDER BY t.id"""
    )
    return {row["id"]: row["token_id"] for row in rows}


def signing_key(view: View, kid: str | None = None) -> Row | None:
    """The key with this id, or the one in use now."""
    if kid is not None:
        return view.one("SELECT * FROM signing_keys WHERE kid = ?", kid)
    return view.one("SELECT * FROM signing_keys WHERE retired_at IS NULL ORDER BY created_at DESC, kid DESC LIMIT 1")


def signing_keys(view: View) -> list[Row]:
    """Every signing key, the one in use first, each with ``devices``: how many obey what it signs."""
    return view.all(
        """SELECT k.kid, k.created_at, k.retired_at,
                (SELECT count(DISTINCT device_pk) FROM tokens WHERE grant_kid = k.kid AND state <> 'revoked') AS devices
            FROM signing_keys k ORDER BY k.retired_at IS NOT NULL, k.created_at DESC, k.kid DESC"""
    )


def signing_key_ids(view: View) -> list[str]:
    """The key in use, and each retired one that a live token relies on."""
    rows = view.all(
        """SELECT kid FROM signing_keys k WHERE retired_at IS NULL
                OR EXISTS (SELECT 1 FROM tokens WHERE grant_kid = k.kid AND state <> 'revoked')
            ORDER BY retired_at IS NOT NULL, created_at DESC, kid DESC"""
    )
    return [row["kid"] for row in rows]


def retire_signing_keys(tx: Tx) -> int:
    """No new binding uses the keys that there are; how many had been in use."""
    return tx.run("UPDATE signing_keys SET retired_at = ? WHERE retired_at IS NULL", tx.now).rowcount


def relying_on(view: View, kid: str) -> list[Row]:
    """Devices with a live token whose commands this key signs, with what that token opens as ``token_state``."""
    return view.all(
        """SELECT d.id, d.project_id, d.serial_number, d.end_user_id, max(t.state) AS token_state FROM tokens t
            JOIN devices d ON d.pk = t.device_pk WHERE t.grant_kid = ? AND t.state <> 'revoked'
            GROUP BY d.pk ORDER BY d.id""",
        kid,
    )


def insert_signing_key(tx: Tx, kid: str, public_key: str, private_key: bytes) -> None:
    """A new key; it is the one in use from now on. The private half comes as it is to be stored."""
    tx.run(
        "INSERT INTO signing_keys (kid, public_key, private_key, created_at) VALUES (?, ?, ?, ?)",
        *(kid, public_key, private_key, tx.now),
    )
