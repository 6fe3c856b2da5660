"""Content of a certificate's page: the claims as facts for people, in the order of the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from gateway.core.clock import SECOND_MS, to_rfc3339
from gateway.http.certificate_page.markup import Markup, element, foreign
from gateway.http.certificate_page.wording import entry, technique

Claims = Mapping[str, Any]
Fact = tuple[str, Markup]
"""A label, and what stands beside it."""

MOST_ENTRIES: Final = 6
"""Entries of ``wiped`` and ``kept`` that are shown. A device may report more than fits on a sheet of paper."""
MOST_CHARACTERS: Final = 24
_MOST_OF_ACTOR: Final = 48
"""Characters of a name and of an id. A key's id has 30; a person's can have 260."""
_MUCH: Final = 160
"""Characters of long facts above which they are printed smaller."""
_RECORDINGS: Final = "recordings"
_MISSING: Final = "not known"
_LATER: Final = "not known when issued"


@dataclass(frozen=True)
class Facts:
    """One titled list of facts."""

    title: str
    rows: Sequence[Fact]


def facts(claims: Claims) -> list[Facts]:
    """Return what the page lists, without what was wiped and kept."""
    return [
        Facts("Device", list(_device(claims))),
        Facts("Request", list(_request(claims))),
        Facts("What the gateway did", list(_gateway(claims))),
        Facts("Evidence", list(_evidence(claims))),
    ]


def _device(claims: Claims) -> Iterable[Fact]:
    device = claims.get("device", {})
    yield "Serial number", _text(device.get("serial_number"))
    yield "Model", _text(device.get("model"))
    yield "Firmware", _text(device.get("firmware_version"))
    yield "Device id", _code(claims.get("sub"))
    yield "End user (pseudonym)", _pseudonym(claims.get("end_user"))


def _request(claims: Claims) -> Iterable[Fact]:
    request = claims.get("request", {})
    yield "Requested", moment(request.get("at"))
    yield "By", _by(request)
    yield "Request id", _code(request.get("request_id"))
    yield "Recordings", _text({"wipe": "to be wiped", "keep": "to be kept"}.get(request.get("recordings")))
    yield "Delivered", moment(claims.get("delivered_at"), "never reported")
    yield "Finished", moment(claims.get("finished_at"))


def _by(request: Claims) -> Markup:
    """Return who asked: the name, and the id that never changes. Long ones are cut; the claims have the whole."""
    name, actor = (_cut(str(request.get(each) or ""), _MOST_OF_ACTOR) for each in ("actor_name", "actor"))
    return element("span", foreign(name), " ", _code(actor)) if name else _code(actor)


def _gateway(claims: Claims) -> Iterable[Fact]:
    done = claims.get("gateway", {})
    yield "Token revoked", moment(done.get("token_revoked_at"), _LATER)
    yield "Sessions closed", moment(done.get("sessions_closed_at"), _LATER)
    yield "Message cleared", moment(done.get("retained_cleared_at"), _LATER)
    generation = claims.get("generation", {})
    before, after = generation.get("before"), generation.get("after")
    yield "Generation", _text(None if before is None else f"{before} → {_MISSING if after is None else after}")


def _evidence(claims: Claims) -> Iterable[Fact]:
    grant, receipt = claims.get("grant", {}), claims.get("receipt") or {}
    yield "Signed command", _code(grant.get("jti"))
    yield "Signed with key", _code(grant.get("kid"))
    yield "Device's receipt", _text(receipt_words(receipt))


def reason(claims: Claims) -> Markup:
    """Return why the reset was requested."""
    return _text(claims.get("request", {}).get("reason"), "none given")


def is_long(claims: Claims) -> bool:
    """Return whether the page needs smaller letters to fit one sheet."""
    request = claims.get("request", {})
    long = (claims.get("device", {}).get("serial_number"), request.get("reason"), request.get("actor_name") or "")
    return sum(len(str(each)) for each in long) > _MUCH


def receipt_words(receipt: Claims) -> str:
    """Return what the receipt is worth."""
    if not receipt:
        return "none"
    verified = "verified" if receipt.get("verified") else "not verified"
    return f"{verified}, {receipt.get('alg', 'unknown algorithm')}{', late' if receipt.get('late') else ''}"


def wiped(claims: Claims) -> list[tuple[str, str]]:
    """Return each entry that the device reported as wiped, and how."""
    how = claims.get("technique") or {}
    number = (claims.get("recordings") or {}).get("wiped")
    entries = _few(claims.get("wiped"))
    if number and _RECORDINGS not in entries:
        entries.append(_RECORDINGS)
    counted = {_RECORDINGS: f"{entry(_RECORDINGS)}: {number}"} if number is not None else {}
    return [(counted.get(each) or _cut(entry(each)), technique(how.get(each))) for each in entries]


def kept(claims: Claims) -> list[str]:
    """Return each entry that the device reported as kept."""
    recordings = claims.get("recordings") or {}
    listed = [_cut(entry(each)) for each in _few(claims.get("kept"))]
    if recordings.get("kept"):
        listed.append(f"Recordings: {recordings['kept']}")
    return listed


def unlisted(claims: Claims) -> int:
    """Return the number of entries that the page leaves out."""
    return sum(max(0, len(claims.get(each) or ()) - MOST_ENTRIES) for each in ("wiped", "kept"))


def moment(text: str | None, otherwise: str = _MISSING) -> Markup:
    """Return an instant (RFC 3339) as people read it, in UTC."""
    if text is None:
        return element("span", otherwise, class_="none")
    at = datetime.fromisoformat(text)
    return element("time", f"{at:%d %b %Y, %H:%M:%S} UTC", datetime=text)


def issued(claims: Claims) -> Markup:
    """Return when the certificate was signed."""
    at: int | None = claims.get("iat")
    return moment(None if at is None else to_rfc3339(at * SECOND_MS))


def number(claims: Claims) -> str:
    """Return the place of the certificate in the chain of its project."""
    return f"{claims.get('number', _MISSING)}, project {claims.get('project_id', _MISSING)}"


def _text(text: str | None, otherwise: str = _MISSING) -> Markup:
    return element("span", otherwise, class_="none") if text in (None, "") else foreign(str(text))


def _code(text: str | None) -> Markup:
    return element("span", _MISSING, class_="none") if not text else element("code", text)


def _pseudonym(end_user: Any) -> Markup:
    value = end_user.get("hash") if isinstance(end_user, Mapping) else end_user
    return element("span", "none bound, or not known", class_="none") if not value else element("code", str(value))


def _few(entries: Any) -> list[str]:
    return [str(each) for each in entries or ()][:MOST_ENTRIES]


def _cut(text: str, most: int = MOST_CHARACTERS) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
