"""Laws of certificates (invariant 7), judged by what each commit changed and by the bytes that it left."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.store import Row
from gateway.store.engine import DatabaseConnection
from tests.simulation.integrator import Finding

Readable: TypeAlias = sqlite3.Connection | DatabaseConnection
FINAL: Final = ("executed", "failed", "expired", "cancelled")
_ONE: Final = "each final reset has one certificate, in the same commit"
_CHAIN: Final = "the chain of certificates is unbroken"
_TRUE: Final = "a certificate says what happened"
_PERSON: Final = "a certificate names no person"
_END_USER: Final = re.compile(r"\beu_[A-Za-z0-9]+")


def check_commit(view: Readable, ledger: list[Row]) -> Iterator[Finding]:
    """Each reset that this commit ends has its certificate in it, and what it adds continues the chain."""
    added = [row for row in ledger if row["what"] == "certificate"]
    ended = [row["id"] for row in ledger if row["what"] == "command" and row["new"] in FINAL]
    resets = {each for each in ended if _command(view, each)["type"] == "factory_reset"}
    written = Counter(row["old"] for row in added if row["new"] == "first")
    for command_id in sorted(resets | written.keys()):
        if written[command_id] != (command_id in resets):
            ends = "ends" if command_id in resets else "does not end"
            yield 7, _ONE, f"{command_id} {ends} in a commit that adds {written[command_id]} certificates of it"
    superseded = {
        json.loads(row["new"])["command_id"]
        for row in ledger
        if row["what"] == "event" and row["old"] == "reset.superseded"
    }
    for row in added:
        yield from _check(view, row["id"], is_superseded=row["old"] in superseded)


def _check(view: Readable, certificate_id: str, *, is_superseded: bool) -> Iterator[Finding]:
    row = view.execute("SELECT * FROM certificates WHERE id = ?", (certificate_id,)).fetchone()
    claims = _claims(row["jws"])
    before = view.execute(
        "SELECT jws FROM certificates WHERE project_id = ? AND seq = ?", (row["project_id"], row["seq"] - 1)
    ).fetchone()
    previous = None if before is None else hashlib.sha256(before["jws"].encode()).hexdigest()
    if claims["previous"] != previous or claims["number"] != row["seq"] or (previous is None) != (row["seq"] == 1):
        yield 7, _CHAIN, f"{row['id']}, number {claims['number']}, does not continue number {row['seq'] - 1}"
    if not _is_signed(view, row):
        yield 7, _TRUE, f"{row['id']}: its signature is wrong"
    status = _command(view, row["command_id"])["status"]
    wanted = "superseded" if is_superseded else status
    if row["kind"] == "first" and claims["outcome"] != wanted:
        yield 7, _TRUE, f"{row['id']} says {claims['outcome']}, and the reset is {wanted}"
    if named := _END_USER.search(json.dumps({**claims, "previous": "", "grant": ""})):
        yield 7, _PERSON, f"{row['id']} has {named.group()}"


def check_chains(view: Readable) -> Iterator[Finding]:
    """At the end: no gap, digests of the bytes that are there, a first certificate for each final reset."""
    previous: dict[str, tuple[int, str | None]] = {}
    for row in view.execute("SELECT * FROM certificates ORDER BY project_id, seq"):
        number, digest = previous.get(row["project_id"], (0, None))
        if row["seq"] != number + 1 or _claims(row["jws"])["previous"] != digest:
            yield 7, _CHAIN, f"{row['id']} does not follow number {number}"
        previous[row["project_id"]] = row["seq"], hashlib.sha256(row["jws"].encode()).hexdigest()
    unequal = view.execute(
        """SELECT c.id, c.status, count(f.id) AS certificates FROM commands c
            LEFT JOIN certificates f ON f.command_id = c.id AND f.kind = 'first' WHERE c.type = 'factory_reset'
            GROUP BY c.id HAVING count(f.id) <> CASE WHEN c.status IN ('pending', 'delivered') THEN 0 ELSE 1 END"""
    )
    for row in unequal:
        yield 7, _ONE, f"{row['id']} is {row['status']} and has {row['certificates']}"


def _command(view: Readable, command_id: str) -> Any:
    return view.execute("SELECT type, status FROM commands WHERE id = ?", (command_id,)).fetchone()


def _is_signed(view: Readable, row: Row) -> bool:
    key = view.execute("SELECT public_key FROM signing_keys WHERE kid = ?", (row["kid"],)).fetchone()
    head, body, signature = row["jws"].split(".")
    try:
        Ed25519PublicKey.from_public_bytes(_bytes(key["public_key"])).verify(
            _bytes(signature), f"{head}.{body}".encode()
        )
    except InvalidSignature:
        return False
    return True


def _claims(jws: str) -> dict[str, Any]:
    claims: dict[str, Any] = json.loads(_bytes(jws.split(".")[1]))
    return claims


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
