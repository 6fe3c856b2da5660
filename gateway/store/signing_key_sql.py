"""SQL of the keys that sign grants and certificates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from gateway.store import key_sql, short_ids
from gateway.store.records import columns

if TYPE_CHECKING:
    from gateway.store.transaction import Tx, View

CERTIFIED_BEFORE: Final = "certified_before"
"""The fact with the ids of keys that signed certificates which a restore has lost: a JSON list."""
RELY_ON_KEY: Final = f"{short_ids.like('grant_kid', 'k.kid')} AND grant_kid = k.kid AND state <> 'revoked'"
"""The condition that a good token has the signing key ``k``."""


class SigningKeyRecord(NamedTuple):
    """A key that signs grants. ``private_key`` is as it is stored: sealed where the registry is encrypted."""

    kid: str
    public_key: str
    private_key: bytes
    created_at: int
    retired_at: int | None
    leaked_at: int | None

    def __repr__(self) -> str:
        """Return what may be logged."""
        return f"SigningKeyRecord(kid={self.kid!r})"


class SigningKeyUse(NamedTuple):
    """A signing key, with the number of devices that trust it."""

    kid: str
    created_at: int
    retired_at: int | None
    leaked_at: int | None
    devices: int


class RelyingDevice(NamedTuple):
    """A device whose commands a signing key signs, and the state of its token."""

    id: str
    project_id: str
    serial_number: str
    end_user_id: str | None
    token_state: str


_KEYS: Final = f"SELECT {columns(SigningKeyRecord, 'k')} FROM signing_keys k"  # noqa: S608 - our own columns


def signing_key(view: View, kid: str | None = None) -> SigningKeyRecord | None:
    """Return the key with this id, or the one in use now."""
    if kid is not None:
        return view.record(SigningKeyRecord, f"{_KEYS} WHERE k.kid = ?", kid)
    return view.record(
        SigningKeyRecord, f"{_KEYS} WHERE k.retired_at IS NULL ORDER BY k.created_at DESC, k.kid DESC LIMIT 1"
    )


def signing_keys(view: View) -> list[SigningKeyUse]:
    """Return every signing key, the one in use first."""
    return view.records(
        SigningKeyUse,
        f"""SELECT k.kid, k.created_at, k.retired_at, k.leaked_at,
                (SELECT count(DISTINCT device_pk) FROM tokens WHERE {RELY_ON_KEY}) AS devices
            FROM signing_keys k ORDER BY k.retired_at IS NOT NULL, k.created_at DESC, k.kid DESC""",  # noqa: S608 - a constant
    )


def signing_key_ids(view: View) -> list[str]:
    """Return the key in use, and each retired one that a good token relies on or that signed a certificate."""
    rows = view.all(
        f"""SELECT kid FROM signing_keys k WHERE retired_at IS NULL
                OR EXISTS (SELECT 1 FROM tokens WHERE {RELY_ON_KEY})
                OR EXISTS (SELECT 1 FROM certificates WHERE kid = k.kid) OR kid IN ({view.dialect.names})
            ORDER BY retired_at IS NOT NULL, created_at DESC, kid DESC""",  # noqa: S608 - a constant
        key_sql.meta(view, CERTIFIED_BEFORE) or "[]",
    )
    return [row["kid"] for row in rows]


def retire_signing_keys(tx: Tx) -> int:
    """Retire the present keys, so that no new binding uses them; return how many were in use."""
    return tx.run("UPDATE signing_keys SET retired_at = ? WHERE retired_at IS NULL", tx.now).rowcount


def relying_on(view: View, kid: str) -> list[RelyingDevice]:
    """Return devices with a good token whose commands this key signs."""
    return view.records(
        RelyingDevice,
        f"""SELECT d.id, d.project_id, d.serial_number, d.end_user_id, max(t.state) AS token_state FROM tokens t
            JOIN devices d ON d.pk = t.device_pk WHERE {short_ids.like("t.grant_kid", "?1")} AND t.grant_kid = ?1
            AND t.state <> 'revoked' GROUP BY d.pk ORDER BY d.id""",  # noqa: S608 - a constant
        kid,
    )


def insert_signing_key(tx: Tx, kid: str, public_key: str, private_key: bytes) -> None:
    """Insert a key and put it into use. The private half comes in its stored form."""
    tx.run(
        "INSERT INTO signing_keys (kid, public_key, private_key, created_at) VALUES (?, ?, ?, ?)",
        *(kid, public_key, private_key, tx.now),
    )
