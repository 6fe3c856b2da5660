"""The document: the facts of a certificate as one HTML page with its style inside."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Final

from gateway.http.certificate_page import content, qr_code, wording
from gateway.http.certificate_page.content import Claims, Facts
from gateway.http.certificate_page.markup import Markup, element, foreign, raw
from gateway.http.certificate_page.wording import Verdict

_STYLE: Final = (files("gateway.http") / "static" / "certificate.css").read_text(encoding="utf-8")
STYLE_HASH: Final = f"'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'"
"""The only style that the page may have, as a content security policy names it."""
_INSIDE: Final = f"default-src 'none'; style-src {STYLE_HASH}; base-uri 'none'; form-action 'none'"
POLICY: Final = f"{_INSIDE}; frame-ancestors 'none'; sandbox allow-modals"
"""Content security policy of the page: no script, nothing from elsewhere."""
_SIGNS: Final = {
    "good": "M4 12.5l5 5L20 6.5",
    "bad": "M6 6l12 12M18 6L6 18",
    "off": "M5 12h14",
}
_MARK: Final = raw(
    '<svg class="mark" viewBox="0 0 16 16" aria-hidden="true"><rect width="16" height="16" rx="4"/>'
    '<path d="M3 9h3l1.5-4 2 7 1.5-3H13"/></svg>'
)


def render(claims: Claims, *, kid: str, sha256: str, addenda: Sequence[str] = ()) -> bytes:
    """Return the page of a certificate.

    ``claims`` are those of the signed certificate, ``kid`` the key that signed it, ``sha256`` the hash of the compact
    signature, in hexadecimal digits. ``addenda`` are the ids of later certificates of the same reset.
    """
    late = (claims.get("late") or {}).get("status")
    verdict = wording.verdict(str(claims.get("outcome")), late=late)
    is_wiped = "executed" in (claims.get("outcome"), late)
    requested = (claims.get("request") or {}).get("recordings", "keep")
    page = element(
        "main",
        _header(claims),
        _outcome(claims, verdict, addenda),
        element("div", *map(_facts, content.facts(claims)[:2]), class_="columns"),
        element(
            "section", element("h2", "Reason of the request"), element("p", content.reason(claims)), class_="reason"
        ),
        _wiped_and_kept(claims),
        element("div", *map(_facts, content.facts(claims)[2:]), class_="columns"),
        _limits(wording.limits(is_wiped=is_wiped, recordings=requested, reported=claims.get("recordings") is not None)),
        _verification(claims, kid, sha256),
        class_="long" if content.is_long(claims) else "short",
    )
    title = f"Certificate of factory reset {claims.get('jti')}"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        raw(f'<meta http-equiv="Content-Security-Policy" content="{_INSIDE}">'),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="robots", content="noindex"),
        element("title", title),
        raw(f"<style>{_STYLE}</style>"),
    )
    return f"<!doctype html>\n{element('html', head, element('body', page), lang='en')}\n".encode()


def _header(claims: Claims) -> Markup:
    issuer = element("p", "Device gateway ", element("code", str(claims.get("iss"))), class_="issuer")
    addendum = claims.get("addendum_to")
    title = "Addendum to a certificate of reset" if addendum else "Certificate of factory reset"
    of = [element("p", "Adds to certificate ", element("code", str(addendum)))] if addendum else []
    return element(
        "header",
        _MARK,
        element("div", element("h1", title), issuer, *of, class_="name"),
        element(
            "p",
            element("code", str(claims.get("jti"))),
            element("span", "issued ", content.issued(claims)),
            class_="number",
        ),
    )


def _outcome(claims: Claims, verdict: Verdict, addenda: Sequence[str]) -> Markup:
    later = (
        [element("p", "The device reported something later: see addendum ", element("code", addenda[-1]), ".")]
        if addenda and not claims.get("addendum_to")
        else []
    )
    sign = raw(f'<svg viewBox="0 0 24 24" aria-hidden="true"><path d="{_SIGNS[verdict.tone]}"/></svg>')
    text = element("div", element("h2", verdict.headline), element("p", verdict.statement), *later)
    return element("section", sign, text, class_=f"outcome {verdict.tone}")


def _facts(listed: Facts) -> Markup:
    rows = (element("div", element("dt", label), element("dd", value)) for label, value in listed.rows)
    return element("section", element("h2", listed.title), element("dl", *rows))


def _wiped_and_kept(claims: Claims) -> Markup:
    left_out = content.unlisted(claims)
    more = [element("p", f"{left_out} more are in the signed certificate.", class_="none")] if left_out else []
    return element(
        "div",
        element("section", element("h2", "Wiped, and how"), _wiped(claims)),
        element("section", element("h2", "Kept"), _kept(claims), *more),
        class_="columns",
    )


def _wiped(claims: Claims) -> Markup:
    entries = content.wiped(claims)
    if not entries:
        return element("p", "The device reported nothing as wiped.", class_="none")
    rows = (
        element("tr", element("th", foreign(what), scope="row"), element("td", foreign(how))) for what, how in entries
    )
    return element("table", element("tbody", *rows))


def _kept(claims: Claims) -> Markup:
    entries = content.kept(claims)
    if not entries:
        return element("p", "The device reported nothing as kept.", class_="none")
    return element("ul", *(element("li", foreign(each)) for each in entries))


def _limits(limits: list[str]) -> Markup:
    return element(
        "section",
        element("h2", "What this certificate does not prove"),
        element("ul", *(element("li", each) for each in limits)),
        class_="limits",
    )


def _verification(claims: Claims, kid: str, sha256: str) -> Markup:
    text = qr_code.verification_text(
        certificate_id=str(claims.get("jti")), sha256=sha256, issuer=str(claims.get("iss")), kid=kid
    )
    rows = (
        ("SHA-256", sha256),
        ("Signing key", kid),
        ("Number", content.number(claims)),
        ("Previous", str(claims.get("previous") or "none, the first of its project")),
    )
    listed = (element("div", element("dt", label), element("dd", element("code", value))) for label, value in rows)
    how = element(
        "p",
        "This page is a reading copy. The signed certificate counts. Check it with ",
        element("code", "gateway certificates verify FILE --jwks FILE"),
        ", and compare its SHA-256 with the one here.",
    )
    return element(
        "section",
        qr_code.drawing(text),
        element("div", element("h2", "Verification"), how, element("dl", *listed)),
        class_="verify",
    )
