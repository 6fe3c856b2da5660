"""Pseudonyms of end users, for what outlives the person's data (contract, section 7)."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Final

from gateway.store import Tx, end_user_sql

SALT_BYTES: Final = 32


def fingerprint(tx: Tx, project_id: str, end_user_id: str, salt: bytes | None) -> str:
    """Return the pseudonym of a person: base64url(HMAC-SHA256(salt, end_user_id)), without padding.

    The salt is random, one for each person and project. While it exists, the operator can show that two documents are
    about the same person. Without it the pseudonym cannot be linked to an id, not even by trying all ids.

    ``salt`` is the one that was found with the device. None: it is made, unless another write of this transaction has
    made it.
    """
    salt = salt or tx.new_salts.get((project_id, end_user_id))
    if salt is None:
        salt = tx.entropy(SALT_BYTES)
        end_user_sql.insert_salt(tx, project_id, end_user_id, salt)
    digest = hmac.new(salt, end_user_id.encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
