"""Check of certificates without a registry: signatures, and the chain in which each repeats the digest of the last.

A file holds one certificate (a compact JWS, or the JSON of the API) or an exported chain, one certificate on a line.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import ValidationError

from gateway.core.received_json import parse_json
from gateway.domain.certificates import TYPE, sha256
from gateway.errors import GatewayError
from gateway.models.certificates import CertificateClaims

_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_FORMS: Final = (
    "It should hold one certificate (a compact JWS, or the JSON of the API) or a chain as 'gateway certificates "
    "export' writes it, one certificate on a line."
)


class CertificateError(GatewayError):
    """A certificate, a chain or a set of keys is not what it should be."""

    code = "certificate_invalid"


class PublicKey(NamedTuple):
    """A key that may have signed certificates; ``leaked_at`` (RFC 3339) where others know it."""

    key: Ed25519PublicKey
    leaked_at: str | None


class Entry(NamedTuple):
    """A certificate as a file holds it: where, the JWS, and what stands beside it.

    ``is_link`` is False for one that comes with its addenda: between those others may have been written.
    """

    place: str
    jws: str
    claims: Any = None
    sha256: Any = None
    is_link: bool = True


class Checked(NamedTuple):
    """A project's part of a file, found right: numbers of the first and last certificate, and how many there are."""

    project_id: str
    first: int
    last: int
    certificates: int


class _Link(NamedTuple):
    name: str
    number: int
    sha256: str


# --- reading ----------------------------------------------------------------------------------------------------------


def keys(text: str) -> dict[str, PublicKey]:
    """Return the Ed25519 keys of a JWK set, by ``kid``.

    Raises:
        CertificateError: it is no JWK set, or has no such key.
    """
    try:
        document = parse_json(text)
        listed = [each for each in document["keys"] if each.get("crv") == "Ed25519" and each.get("kid")]
        found = {
            each["kid"]: PublicKey(Ed25519PublicKey.from_public_bytes(_unbase64url(each["x"])), each.get("leaked_at"))
            for each in listed
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CertificateError("--jwks: is no set of public keys. Use what /.well-known/jwks.json answers.") from error
    if not found:
        raise CertificateError("--jwks: has no Ed25519 key. Use what /.well-known/jwks.json answers.")
    return found


def entries(lines: Iterable[str]) -> Iterator[Entry]:
    """Yield the certificates of a file, line by line where each has its own.

    Raises:
        CertificateError: the file is empty, cut off, or something else.
    """
    numbered = ((number, line.strip()) for number, line in enumerate(lines, 1))
    used = ((number, line) for number, line in numbered if line)
    first = next(used, None)
    if first is None:
        raise CertificateError(f"The file is empty. {_FORMS}")
    if _is_one(first[1]):
        for number, line in itertools.chain([first], used):
            yield from _of(line, f"line {number}")
        return
    text = "\n".join([first[1], *(line for _, line in used)])
    document = _parsed(text, "The file")
    for number, each in enumerate(document if isinstance(document, list) else [document], 1):
        yield from _of_document(each, f"certificate {number} of the file")


def _is_one(line: str) -> bool:
    """Return whether a line is a whole certificate; a document over several lines begins with a part of one."""
    if _COMPACT.fullmatch(line):
        return True
    try:
        return isinstance(parse_json(line), dict)
    except ValueError:
        return False


def _of(line: str, place: str) -> Iterator[Entry]:
    if _COMPACT.fullmatch(line):
        yield Entry(place, line)
    else:
        yield from _of_document(_parsed(line, place), place)


def _parsed(text: str, place: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise CertificateError(
            f"{place}: cannot be read, as if it was cut off or changed ({error}). {_FORMS}"
        ) from error


def _of_document(document: Any, place: str) -> Iterator[Entry]:
    if isinstance(document, str):
        document = {"jws": document}
    if not isinstance(document, dict) or not isinstance(document.get("jws"), str):
        raise CertificateError(f"{place}: is no certificate. {_FORMS}")
    addenda = document.get("addenda") or []
    if not isinstance(addenda, list):
        raise CertificateError(f"{place}: 'addenda' should be a list. {_FORMS}")
    yield Entry(place, document["jws"], document.get("claims"), document.get("sha256"), is_link=not addenda)
    for number, each in enumerate(addenda, 1):
        for entry in _of_document(each, f"{place}, addendum {number}"):
            yield entry._replace(is_link=False)


# --- checking ---------------------------------------------------------------------------------------------------------


class ChainCheck:
    """Checks certificates one after the other; memory is bounded by the number of projects."""

    def __init__(self, known: Mapping[str, PublicKey], *, is_partial: bool = False) -> None:
        self._known = known
        self._is_partial = is_partial
        self._ends: dict[str, _Link] = {}
        self._checked: dict[str, Checked] = {}
        self._unsure: dict[str, str] = {}
        """By project: why its certificates count only if a good one follows."""

    def add(self, entry: Entry) -> None:
        """Check the next certificate.

        Raises:
            CertificateError: it is not right, or not the next link of its project's chain.
        """
        signed, key = self._signed(entry)
        claims = _claims(signed, entry.place)
        name = f"{entry.place}: certificate {claims.jti} (number {claims.number} of {claims.project_id})"
        _require_same(entry, signed, name)
        if entry.is_link:
            self._continue(name, claims, entry)
        before = self._checked.get(claims.project_id, Checked(claims.project_id, claims.number, 0, 0))
        self._checked[claims.project_id] = before._replace(last=claims.number, certificates=before.certificates + 1)
        if key.leaked_at is None and entry.is_link:
            self._unsure.pop(claims.project_id, None)
        elif key.leaked_at is not None:
            self._unsure[claims.project_id] = (
                f"{name}: is signed with a key that leaked ({key.leaked_at}), so its holder can have made it. Check "
                "the exported chain, up to a later certificate of another key."
            )

    def finish(self) -> list[Checked]:
        """Return what was found right.

        Raises:
            CertificateError: the last certificates are signed with a key that leaked, or a chain lacks its beginning.
        """
        for reason in self._unsure.values():
            raise CertificateError(reason)
        for each in self._checked.values():
            if each.certificates > 1 and each.first > 1 and each.project_id in self._ends and not self._is_partial:
                raise CertificateError(
                    f"The chain of {each.project_id} begins with number {each.first}: numbers 1 to {each.first - 1} "
                    "are missing. Export all of it, or add --partial if only this part is to be checked."
                )
        return list(self._checked.values())

    def _signed(self, entry: Entry) -> tuple[Any, PublicKey]:
        """Return what is signed, and the key that signed it."""
        if _COMPACT.fullmatch(entry.jws) is None:
            raise CertificateError(f"{entry.place}: 'jws' is no compact JWS: it was cut off or changed.")
        head, body, signature = entry.jws.split(".")
        key = self._key(entry.place, _document(head, entry.place))
        try:
            key.key.verify(_unbase64url(signature), f"{head}.{body}".encode())
        except (InvalidSignature, ValueError) as error:
            raise CertificateError(
                f"{entry.place}: the signature is wrong. Claims or signature were changed, or another key signed them."
            ) from error
        return _document(body, entry.place), key

    def _key(self, place: str, header: Any) -> PublicKey:
        if not isinstance(header, dict) or header.get("alg") != "EdDSA" or header.get("typ") != TYPE:
            raise CertificateError(f"{place}: is no certificate of reset: its header should say EdDSA and {TYPE}.")
        key = self._known.get(str(header.get("kid")))
        if key is None:
            raise CertificateError(
                f"{place}: the key {str(header.get('kid'))[:80]} is not in the set of --jwks. Take the set from the "
                "gateway that wrote the certificate."
            )
        return key

    def _continue(self, name: str, claims: CertificateClaims, entry: Entry) -> None:
        """Check that a certificate follows the one before it."""
        end, digest = self._ends.get(claims.project_id), sha256(entry.jws)
        if end is not None:
            if claims.number <= end.number:
                raise CertificateError(
                    f"{name}: comes after number {end.number}. It is a duplicate, the order was changed, or a restored "
                    "backup began a second chain here."
                )
            if claims.number != end.number + 1:
                missing = f"{end.number + 1}" + (f" to {claims.number - 1}" if claims.number > end.number + 2 else "")
                raise CertificateError(f"{name}: follows number {end.number}. Missing: {missing}.")
        if end is not None and claims.previous != end.sha256:
            raise CertificateError(f"{name}: the chain is broken: 'previous' is not the SHA-256 of {end.name}.")
        if (claims.number == 1) != (claims.previous is None):
            raise CertificateError(f"{name}: 'previous' should be null for number 1, and for no other.")
        self._ends[claims.project_id] = _Link(claims.jti, claims.number, digest)


def check(text: Iterable[str], known: Mapping[str, PublicKey], *, is_partial: bool = False) -> list[Checked]:
    """Return what a file holds, all of it right.

    Raises:
        CertificateError: the first thing that is not right.
    """
    checking = ChainCheck(known, is_partial=is_partial)
    for entry in entries(text):
        checking.add(entry)
    return checking.finish()


def _claims(signed: Any, place: str) -> CertificateClaims:
    try:
        return CertificateClaims.model_validate(signed)
    except ValidationError as error:
        raise CertificateError(f"{place}: is signed, but holds no certificate of reset.") from error


def _require_same(entry: Entry, signed: Any, name: str) -> None:
    """Check what stands beside the JWS: people read that, and not the JWS."""
    if entry.claims is not None and entry.claims != signed:
        raise CertificateError(f"{name}: 'claims' beside the JWS are not what is signed.")
    if entry.sha256 is not None and entry.sha256 != sha256(entry.jws):
        raise CertificateError(f"{name}: 'sha256' beside the JWS is not that of the JWS.")


def _document(part: str, place: str) -> Any:
    try:
        return parse_json(_unbase64url(part))
    except ValueError as error:
        raise CertificateError(f"{place}: 'jws' is no compact JWS: it was cut off or changed.") from error


def _unbase64url(text: str) -> bytes:
    """Return the bytes; unlike Python's decoder it takes no characters of other alphabets.

    Raises:
        ValueError: it is no base64url.
    """
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error
