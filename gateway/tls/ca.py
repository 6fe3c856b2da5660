"""Certificate authority for a trial or a closed site: ``gateway tls`` (docs/tls.md).

Keys are ECDSA on P-256, which every TLS library supports. The authority's key lies beside the certificates that it
signs and has no password: who can read it can pose as any server and any device of the site. A site that has an
authority already uses that one.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gateway.core import files
from gateway.errors import InvalidRequestError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

AUTHORITY_DAYS: Final = 3_650
CERTIFICATE_DAYS: Final = 397
"""The longest validity that phones and browsers accept, in days."""
_BACKDATED: Final = dt.timedelta(hours=1)  # a device's clock may be a little behind
_LONGEST_NAME: Final = 64  # of a common name (X.520)
_SECRET_MODE: Final = 0o600
_OPEN_MODE: Final = 0o644
_ALL_USAGES: Final = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


@dataclass(frozen=True)
class Pair:
    """The files of a certificate (PEM) and its key (PEM, readable by its owner alone)."""

    certificate: Path
    key: Path

    @classmethod
    def at(cls, folder: Path, name: str) -> Self:
        """Return the pair of this name."""
        return cls(folder / f"{name}.pem", folder / f"{name}.key")


class Authority:
    """Signs certificates with the key in ``directory``: ``ca.pem`` and ``ca.key``, made when neither exists."""

    def __init__(self, directory: Path) -> None:
        """Load the authority, or make it.

        Raises:
            UnavailableError: its files cannot be read or written, or one of the two is missing.
        """
        self.directory = directory
        self.files = Pair(directory / "ca.pem", directory / "ca.key")
        there = [file for file in (self.files.certificate, self.files.key) if file.exists()]
        if len(there) == 1:
            raise UnavailableError(
                f"{there[0]} is there without its other half. Put that back, or take this away to begin anew; then all "
                "who trust the old authority have to be told of the new one."
            )
        try:
            if not there:
                directory.mkdir(parents=True, exist_ok=True)
                self._make()
            self._certificate = x509.load_pem_x509_certificate(self.files.certificate.read_bytes())
            key = serialization.load_pem_private_key(self.files.key.read_bytes(), None)
        except (OSError, ValueError, TypeError) as error:
            raise UnavailableError(f"The authority in {directory} cannot be used: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise UnavailableError(f"{self.files.key} was not made by 'gateway tls': it should be an ECDSA key.")
        self._key = key

    def server(self, name: str, hosts: Iterable[str], folder: Path | None = None) -> Pair:
        """Issue a certificate for a server that clients reach as ``hosts``, names or IP addresses; the first is its CN.

        The pair is written beside the authority, or into ``folder``.
        """
        wanted = list(dict.fromkeys(hosts))
        names = x509.SubjectAlternativeName([_host(each) for each in wanted])
        return self._signed(Pair.at(folder or self.directory, name), wanted[0], ExtendedKeyUsageOID.SERVER_AUTH, names)

    def has_signed(self, certificate: x509.Certificate) -> bool:
        """Return whether this authority has signed the certificate."""
        try:
            certificate.verify_directly_issued_by(self._certificate)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True

    def client(self, common_name: str) -> Pair:
        """Issue a client certificate for this device (its id), or for the gateway itself."""
        pair = Pair.at(self.directory, common_name)
        return self._signed(pair, common_name, ExtendedKeyUsageOID.CLIENT_AUTH, None)

    def _make(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"device gateway authority {x509.random_serial_number():x}"[:_LONGEST_NAME])
        certificate = (
            _draft(name, name, key, AUTHORITY_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        _write(self.files, certificate, key)

    def _signed(
        self, pair: Pair, common_name: str, purpose: x509.ObjectIdentifier, hosts: x509.SubjectAlternativeName | None
    ) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        draft = (
            _draft(_name(common_name), self._certificate.subject, key, CERTIFICATE_DAYS)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage("digital_signature"), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if hosts is not None:
            draft = draft.add_extension(hosts, critical=False)
        _write(pair, draft.sign(self._key, hashes.SHA256()), key)
        return pair


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    try:
        return x509.DNSName(text)
    except ValueError:
        raise InvalidRequestError(f"{text!r} should be a host name in ASCII, or an IP address.") from None


def _name(common_name: str) -> x509.Name:
    if not 0 < len(common_name) <= _LONGEST_NAME:
        raise InvalidRequestError(
            f"{common_name!r} should have 1 to {_LONGEST_NAME} characters to be a certificate's CN."
        )
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(*allowed: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{usage: usage in allowed for usage in _ALL_USAGES})


def _draft(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + dt.timedelta(days=days))
    )


def _write(pair: Pair, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    """Write the key first, so that a reader of the new certificate finds its key."""
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    try:
        files.replace(pair.key, secret, mode=_SECRET_MODE)
        files.replace(pair.certificate, certificate.public_bytes(pem), mode=_OPEN_MODE)
    except OSError as error:
        raise UnavailableError(f"{pair.certificate.parent} cannot be written ({error.strerror}).") from error
