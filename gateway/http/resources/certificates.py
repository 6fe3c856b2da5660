"""Certificates of reset (contract, section 7)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from gateway.domain import certificates
from gateway.errors import NotFoundError
from gateway.http import certificate_page, negotiation
from gateway.http.callers import READ
from gateway.http.operation import AnyOperation, Operation, RequestContext
from gateway.http.resources.reset_list import TAG
from gateway.http.responses import ApiResponse
from gateway.models.certificates import ChosenCertificate, ResetCertificate, SignedCertificate
from gateway.store import View, certificate_sql, device_sql
from gateway.store.certificate_sql import CertificateRecord

JSON: Final = "application/json"
JOSE: Final = "application/jose"
HTML: Final = "text/html"

Form = Callable[[CertificateRecord, list[CertificateRecord]], ApiResponse]
"""Makes an answer of a certificate and its addenda."""


async def get_certificate(call: RequestContext, query: ChosenCertificate) -> ApiResponse:
    """``GET /v1/devices/{device_id}/resets/{command_id}/certificate``."""
    chosen = negotiation.choose(call.request.headers.get(negotiation.ACCEPT), tuple(FORMS))
    return await call.work.read(lambda view: _answer(view, call, query, FORMS[chosen]))


def _answer(view: View, call: RequestContext, query: ChosenCertificate, form: Form) -> ApiResponse:
    """Make the answer in a reader's thread: a QR code takes some milliseconds."""
    found = _certificates(view, call)
    wanted = found[0].id if query.certificate is None else query.certificate
    certificate = next((each for each in found if each.id == wanted), None)
    if certificate is None:
        raise NotFoundError(
            f"This reset has no certificate '{wanted[:80]}'. Leave 'certificate' out for the first one."
        )
    return form(certificate, [each for each in found if each.kind == certificate_sql.ADDENDUM])


def _certificates(view: View, call: RequestContext) -> list[CertificateRecord]:
    device = device_sql.any_of_project(view, call.project_id, call.device_id)  # they outlive the device
    if device is None:
        raise NotFoundError(f"There is no device '{call.device_id[:80]}' in this project, not even a deleted one.")
    return certificates.of_reset(view, device, call.request.path["command_id"])


def _as_json(certificate: CertificateRecord, addenda: list[CertificateRecord]) -> ApiResponse:
    shown = ResetCertificate(**dict(_shown(certificate)), addenda=[_shown(each) for each in addenda])
    return ApiResponse(shown, headers=negotiation.VARY)


def _shown(certificate: CertificateRecord) -> SignedCertificate:
    return SignedCertificate(
        id=certificate.id,
        created_at=device_sql.moment(certificate.created_at) or "",
        claims=certificates.claims(certificate.jws),
        jws=certificate.jws,
        sha256=certificate.sha256,
    )


def _as_jose(certificate: CertificateRecord, _: list[CertificateRecord]) -> ApiResponse:
    return ApiResponse(certificate.jws.encode(), headers=negotiation.VARY, media_type=JOSE)


def _as_page(certificate: CertificateRecord, addenda: list[CertificateRecord]) -> ApiResponse:
    page = certificate_page.render(
        certificates.claims(certificate.jws).model_dump(),
        kid=certificate.kid,
        sha256=certificate.sha256,
        addenda=[each.id for each in addenda],
    )
    headers = {
        **negotiation.VARY,
        "Content-Security-Policy": certificate_page.POLICY,
        "Content-Disposition": f'inline; filename="{certificate.id}.html"',
    }
    return ApiResponse(page, headers=headers, media_type=HTML)


FORMS: Final[Mapping[str, Form]] = {JSON: _as_json, JOSE: _as_jose, HTML: _as_page}
"""The answer by media type; the first one is given where the caller has no wish."""

OPERATIONS: Final[tuple[AnyOperation, ...]] = (
    Operation(
        method="GET",
        path="/v1/devices/{device_id}/resets/{command_id}/certificate",
        summary="Get the certificate of a reset",
        description="What the gateway knew when the reset became final, signed. By `Accept`: JSON with the claims and "
        "the JWS, the compact JWS alone, or a page to print. What the device said later is in `addenda`; the "
        "certificate itself never changes, and outlives events, binding and device. While the reset is open the answer "
        "is 409 `reset_pending`. A reset that ended before there were certificates has none (404).",
        tag=TAG,
        access=READ,
        takes=ChosenCertificate,
        handler=get_certificate,
        answers={200: ResetCertificate},
        conflicts=("reset_pending",),
        other_media_types=tuple(each for each in FORMS if each != JSON),
    ),
)
