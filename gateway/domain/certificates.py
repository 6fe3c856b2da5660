"""Certificates of reset: what the gateway knew when a reset ended, signed, in one chain for each project.

A certificate is written in the transaction that makes its reset final. It repeats the digest of the project's
certificate before it, so that none can vanish unnoticed. What it does not prove is in ``docs/certificates.md``.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final, NamedTuple

from gateway.core import ids
from gateway.core.clock import SECOND_MS, to_rfc3339
from gateway.domain import grants
from gateway.errors import ConflictError, NotFoundError
from gateway.models import certificates as models
from gateway.models.commands import Ack
from gateway.models.resets import Technique
from gateway.store import Tx, View, certificate_sql, measurements, reset_sql
from gateway.store.certificate_sql import ADDENDUM, FIRST, CertificateRecord
from gateway.store.device_sql import moment
from gateway.store.records import DeviceKey
from gateway.store.reset_sql import ResetRecord

TYPE: Final = "reset-certificate+jwt"
"""``typ`` of the header: no grant has it, so neither can be taken for the other (RFC 8725, 3.11)."""
MOST_NAMES: Final = 64
_NAME: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_BY_DEVICE: Final = ("executed", "failed")


class _Said(NamedTuple):
    """What the device has said: its result, its receipt if it gave one, and a status that came after the end."""

    result: dict[str, Any]
    receipt: models.CertifiedReceipt | None
    late: models.CertifiedLate | None = None
    addendum_to: str | None = None


def sha256(jws: str) -> str:
    """Return the SHA-256 of a certificate, in hexadecimal: what ``previous`` of the next one holds."""
    return hashlib.sha256(jws.encode()).hexdigest()


def write_first(tx: Tx, certificate_id: str, command_id: str, result: dict[str, Any] | None) -> None:
    """Write the certificate of a reset that has just ended. ``result`` is the device's."""
    reset = _reset(tx, command_id)
    receipt = models.CertifiedReceipt(verified=True, late=False) if reset.outcome in _BY_DEVICE else None
    _write(tx, certificate_id, reset, _Said(result or {}, receipt))


def write_addendum(tx: Tx, command_id: str, ack: Ack) -> str | None:
    """Write what a device said of a reset that was final; return the certificate's id. The first one stays as it was.

    Return None for a reset from before certificates.
    """
    first = certificate_sql.first_id(tx, command_id)
    if first is None:
        return None
    certificate_id = tx.new_id(ids.CERTIFICATE)
    receipt = models.CertifiedReceipt(verified=True, late=True)
    said = _Said(ack.result or {}, receipt, models.CertifiedLate(status=ack.status), first)
    _write(tx, certificate_id, _reset(tx, command_id), said)
    return certificate_id


def _write(tx: Tx, certificate_id: str, reset: ResetRecord, said: _Said) -> None:
    end = certificate_sql.chain_end(tx, reset.project_id)
    number, previous = (1, None) if end is None else (end.seq + 1, end.sha256)
    claims = models.CertificateClaims(
        iss=tx.rules.gateway_id,
        iat=tx.now // SECOND_MS,
        jti=certificate_id,
        sub=reset.device_id,
        project_id=reset.project_id,
        number=number,
        previous=previous,
        **_of_reset(reset),
        **_of_device(said),
    )
    kid, jws = grants.sign_document(tx, claims.model_dump(), TYPE)
    kind = FIRST if said.addendum_to is None else ADDENDUM
    certificate_sql.insert(
        tx,
        CertificateRecord(
            certificate_id, reset.project_id, number, reset.command_id, kind, kid, tx.now, jws, sha256(jws)
        ),
    )
    tx.measure(measurements.CERTIFICATE, str(reset.outcome) if kind == FIRST else ADDENDUM)


def _of_reset(reset: ResetRecord) -> dict[str, Any]:
    """Return the claims that the gateway knows itself."""
    return {
        "outcome": reset.outcome,
        "device": models.CertifiedDevice(
            serial_number=reset.serial_number, model=reset.model, firmware_version=reset.firmware_version
        ),
        "end_user": None if reset.end_user is None else models.CertifiedPerson(hash=reset.end_user),
        "request": {
            "at": to_rfc3339(reset.requested_at),
            "actor": reset.requested_by,
            "actor_name": reset.requested_by_name,
            "reason": reset.reason,
            "request_id": reset.request_id,
            "recordings": reset.recordings,
        },
        "generation": models.CertifiedGeneration(before=reset.generation_before, after=reset.generation_after),
        "grant": models.CertifiedGrant(kid=reset.grant_kid or "", jti=reset.command_id),
        "delivered_at": moment(reset.delivered_at),
        "executed_at": moment(reset.finished_at) if reset.outcome == "executed" else None,
        "finished_at": moment(reset.finished_at),
        "gateway": models.CertifiedActions(
            token_revoked_at=moment(reset.token_revoked_at),
            sessions_closed_at=moment(reset.sessions_closed_at),
            retained_cleared_at=moment(reset.retained_cleared_at),
        ),
    }


def _of_device(said: _Said) -> dict[str, Any]:
    """Return the claims that repeat the device's words."""
    wiped = _names(said.result.get("wiped"))
    return {
        "wiped": wiped,
        "kept": _names(said.result.get("kept")),
        "recordings": said.result.get("recordings"),
        "technique": _techniques(said.result.get("technique"), wiped or []),
        "receipt": said.receipt,
        "late": said.late,
        "addendum_to": said.addendum_to,
    }


def _names(said: Any) -> list[str] | None:
    """Return the entries that are plain names: a device's words must bring no person into what cannot be changed."""
    if not isinstance(said, list):
        return None
    return [each for each in said if isinstance(each, str) and _is_plain(each)][:MOST_NAMES]


def _is_plain(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and ids.END_USER not in name


def _techniques(said: Any, wiped: list[str]) -> dict[str, Technique] | None:
    return {name: said[name] for name in wiped if name in said} if isinstance(said, dict) else None


def _reset(tx: Tx, command_id: str) -> ResetRecord:
    reset = reset_sql.find(tx, command_id)
    if reset is None:
        raise LookupError(f"no reset {command_id}")
    return reset


def of_reset(view: View, device: DeviceKey, command_id: str) -> list[CertificateRecord]:
    """Return the certificates of a reset of this device: the first, then its addenda.

    Raises:
        NotFoundError: the device has no such reset, or it ended before there were certificates.
        ConflictError: ``reset_pending``: it is open.
    """
    reset = reset_sql.find(view, command_id)
    if reset is None or reset.device_pk != device.pk:
        raise NotFoundError(
            f"This device has no factory reset '{command_id[:80]}'. "
            f"GET /v1/devices/{device.id}/commands?type=factory_reset lists those it has."
        )
    if reset.finished_at is None:
        raise ConflictError(
            "reset_pending",
            "This reset is still open. Its certificate is written when it ends: when the device has executed it or "
            "failed, or when it is cancelled or superseded.",
            details={"command_id": command_id, "delivered_at": moment(reset.delivered_at)},
        )
    found = certificate_sql.of_reset(view, command_id)
    if not found:
        raise NotFoundError(
            "This reset ended under a version of the gateway that wrote no certificates, so it has none. "
            f"GET /v1/devices/{device.id}/commands/{command_id} says what is known of it."
        )
    return found


def claims(jws: str) -> models.CertificateClaims:
    """Return the claims of a certificate of this registry, without a check of its signature."""
    return models.CertificateClaims.model_validate(grants.claims_of(jws))
