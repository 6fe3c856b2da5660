"""TLS of the kit's listeners, and a second certificate that no device may trust."""

import datetime as dt
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

DAY = dt.timedelta(days=1)


class CertificateError(Exception):
    """The certificate or its key cannot be used. The text names the file."""


class TlsSide:
    """Context of the MQTT listener. While `is_impostor`, it shows a certificate of another authority.

    Raises:
        CertificateError: a file is no PEM, or the key belongs to another certificate.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self.is_impostor = False
        self.on_handshake: Callable[[bool], Any] = lambda _is_right: None
        self.context = _context(certificate, key)
        self._impostor = _impostor(certificate)
        self.context.sni_callback = self._choose
        self.plain_context = _context(certificate, key)

    def _choose(self, sslobj: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        """Choose the certificate of a handshake. OpenSSL asks for each, also for one without a server name."""
        self.on_handshake(not self.is_impostor)
        if self.is_impostor:
            sslobj.context = self._impostor


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:
        raise CertificateError(f"{certificate} and {key} cannot be used for TLS: {error}") from error
    return context


def _impostor(certificate: Path) -> ssl.SSLContext:
    """Return a context with a self-signed certificate for the same names."""
    right = x509.load_pem_x509_certificate(certificate.read_bytes())
    key, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "impostor")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - DAY, now + DAY)
    for each in right.extensions:
        if isinstance(each.value, x509.SubjectAlternativeName):
            builder = builder.add_extension(each.value, critical=False)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    pem += key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "impostor.pem"
        file.write_bytes(pem)
        return _context(file, file)
