"""QR code of a certificate: the data by which a printed certificate is compared with the signed one."""

from __future__ import annotations

from typing import Final

from gateway.http.certificate_page.markup import Markup, raw

_QUIET_ZONE: Final = 4
"""Modules of white around the code (ISO/IEC 18004, section 9.1)."""


def verification_text(*, certificate_id: str, sha256: str, issuer: str, kid: str) -> str:
    """Return the content of the QR code, one fact a line.

    The signature itself is left out: a signed certificate has about 2 KiB, and a code of that size cannot be read from
    paper by a phone. Its SHA-256 names exactly one certificate.
    """
    return "\n".join(
        (
            f"certificate {certificate_id}",
            f"sha256 {sha256}",
            f"issuer {issuer}",
            f"key {kid}",
            "keys at /.well-known/jwks.json",
        )
    )


def drawing(text: str) -> Markup:
    """Return the QR code of this text as an SVG element. Up to 15 % of it may be unreadable (level M)."""
    import segno  # noqa: PLC0415 - only the page of a certificate needs it

    code = segno.make_qr(text, error="m").svg_inline(omitsize=True, border=_QUIET_ZONE, svgclass="qr", lineclass=None)
    return raw(code.replace("<svg ", '<svg role="img" aria-label="QR code of the verification data" ', 1))
