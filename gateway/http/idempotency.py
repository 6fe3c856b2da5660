"""``Idempotency-Key``: a repeated POST gets the same answer, and is not done again (contract, section 2).

The answer is written in the transaction that it reports (:meth:`.UnitOfWork.commit`), so neither is ever there without
the other. Every write of such a request first checks whether the same request has been done meanwhile. The rows in the
database decide: nothing waits in memory.

An answer may hold a secret that is shown once (a device token). So it is stored sealed, under a key that is derived
from the caller's credential and the header's value. The registry has only hashes of both.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from starlette.datastructures import Headers

from gateway.errors import ConflictError, InvalidRequestError
from gateway.store import Tx, View, idempotency_sql
from gateway.store.idempotency_sql import KeptAnswer

HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotent-Replay"
PATTERN: Final = r"^[\x21-\x7e]{1,255}$"
"""One to 255 visible ASCII characters, no space."""
MISMATCH: Final = "idempotency_mismatch"
_NONCE_BYTES: Final = 12
_NAMED: Final = re.compile(rb'"end_user_id":"(eu_[A-Za-z0-9]+)"')
_INFO: Final = b"gateway idempotent answer"
_OTHER_REQUEST: Final = (
    f"This {HEADER} came with another request before (its method, path or body differs). Nothing was done. Use a new "
    "key for a new request, and the old one only to send the very same request again."
)
_OTHER_SECRET: Final = (
    f"The request with this {HEADER} was done before, with another secret of the same API key; its answer can be read "
    "with that secret alone. Nothing was done again: GET the device, or the list, to see how it stands."
)


def key_of(headers: Headers) -> str | None:
    """Return the value of the header, or None.

    Raises:
        InvalidRequestError: it is not valid.
    """
    given = headers.getlist(HEADER)
    if not given:
        return None
    if len(given) > 1 or re.fullmatch(PATTERN, given[0]) is None:
        raise InvalidRequestError(
            f"{HEADER}: should be there once, with 1 to 255 visible ASCII characters and no space; a random UUID is a "
            "good one.",
            details={"field": HEADER},
        )
    return given[0]


def request_hash(method: str, path: str, raw: bytes) -> bytes:
    """Return a hash of method, path and body. Spaces and the order of members in the body do not matter."""
    return hashlib.sha256(
        b"\n".join((method.encode(), path.encode("utf-8", "surrogatepass"), _canonical(raw)))
    ).digest()


def _end_user(content: bytes) -> str | None:
    """Return the end user whom an answer names as the one that a device is bound to, or None."""
    found = _NAMED.search(content)
    return None if found is None else found[1].decode()


def _canonical(raw: bytes) -> bytes:
    try:
        return json.dumps(json.loads(raw or b"{}"), sort_keys=True).encode()
    except (ValueError, RecursionError):  # thousands of digits or levels: compared byte by byte
        return raw


@dataclass
class IdempotentRequest:
    """One request with a key: finds its kept answer, and keeps it. ``part`` is one step of several."""

    caller: str
    key: str
    credential: str
    request_hash: bytes
    most_bytes: int = idempotency_sql.MOST_BYTES_OF_KEY
    """Limit of bytes kept for this caller."""
    kept: bool = False

    def find(self, view: View, now: int, part: str = "") -> tuple[int, bytes] | None:
        """Return status and body of the kept answer, or None if the request was not done before.

        Raises:
            ConflictError: the key came with another request, or with another secret of the same caller.
        """
        row = idempotency_sql.find(view, self.caller, self._key_hash(part), now)
        if row is None:
            return None
        if row.request_hash != self.request_hash:
            raise ConflictError(MISMATCH, _OTHER_REQUEST)
        nonce, sealed = row.answer[:_NONCE_BYTES], row.answer[_NONCE_BYTES:]
        try:
            return row.status, self._cipher(part).decrypt(nonce, sealed, self._bound_to(row.status))
        except InvalidTag as error:
            raise ConflictError(MISMATCH, _OTHER_SECRET) from error

    def keep(self, tx: Tx, status: int, content: bytes, part: str = "") -> None:
        """Keep the answer, in the transaction that it reports."""
        nonce = tx.entropy(_NONCE_BYTES)
        sealed = nonce + self._cipher(part).encrypt(nonce, content, self._bound_to(status))
        answer = KeptAnswer(self.request_hash, status, sealed)
        idempotency_sql.keep(tx, self.caller, self._key_hash(part), answer, _end_user(content), self.most_bytes)
        self.kept = self.kept or not part

    def _key_hash(self, part: str) -> bytes:
        return hashlib.sha256(f"{self.key}\n{part}".encode()).digest()

    def _cipher(self, part: str) -> AESGCM:
        derive = HKDF(SHA256(), 32, salt=self._key_hash(part), info=_INFO)
        return AESGCM(derive.derive(f"{self.credential}\n{self.key}".encode()))

    def _bound_to(self, status: int) -> bytes:
        return self.request_hash + str(status).encode()
