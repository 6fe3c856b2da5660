"""SQL of certificates of reset: rows are added at the end of a project's chain, never changed and never deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from gateway.store.records import columns

if TYPE_CHECKING:
    from gateway.store.transaction import Tx, View

FIRST: Final = "first"
ADDENDUM: Final = "addendum"


class CertificateRecord(NamedTuple):
    """A certificate. ``seq`` is its number in the chain of its project, ``sha256`` that of ``jws``, in hexadecimal."""

    id: str
    project_id: str
    seq: int
    command_id: str
    kind: str
    kid: str
    created_at: int
    jws: str
    sha256: str


class ChainEnd(NamedTuple):
    """The newest certificate of a project."""

    seq: int
    sha256: str


_CERTIFICATES: Final = f"SELECT {columns(CertificateRecord, 'c')} FROM certificates c"  # noqa: S608 - our own columns


def chain_end(view: View, project_id: str) -> ChainEnd | None:
    """Return the newest certificate of a project, or None before the first."""
    return view.record(
        ChainEnd, "SELECT seq, sha256 FROM certificates WHERE project_id = ? ORDER BY seq DESC LIMIT 1", project_id
    )


def insert(tx: Tx, certificate: CertificateRecord) -> None:
    """Add a certificate."""
    tx.run(
        """INSERT INTO certificates (id, project_id, seq, command_id, kind, kid, created_at, jws, sha256)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        *certificate,
    )


def of_reset(view: View, command_id: str) -> list[CertificateRecord]:
    """Return the certificates of a reset: the first one, then its addenda. None: it is open, or older than these."""
    return view.records(CertificateRecord, f"{_CERTIFICATES} WHERE c.command_id = ? ORDER BY c.seq", command_id)


def first_id(view: View, command_id: str) -> str | None:
    """Return the id of the first certificate of a reset, or None."""
    found: str | None = view.value("SELECT id FROM certificates WHERE command_id = ? AND kind = 'first'", command_id)
    return found


def find(view: View, name: str) -> list[CertificateRecord]:
    """Return the certificate with this id, or those of the reset with this command id."""
    return view.records(CertificateRecord, f"{_CERTIFICATES} WHERE c.id = ?1 OR c.command_id = ?1 ORDER BY c.seq", name)


def page(
    view: View, project_id: str, *, after: int, limit: int, order: Literal["ASC", "DESC"] = "ASC"
) -> list[CertificateRecord]:
    """Return ``limit`` certificates of a project in the order of the chain, after this number; or the newest first."""
    bound = "c.seq > ?" if order == "ASC" else "c.seq < ?"
    return view.records(
        CertificateRecord,
        f"{_CERTIFICATES} WHERE c.project_id = ? AND {bound} ORDER BY c.seq {order} LIMIT ?",
        *(project_id, after, limit),
    )
