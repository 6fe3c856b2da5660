"""An authority with certificates for a test: `gateway tls` makes them, OpenSSL judges them."""

import datetime as dt
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from gateway.tls.ca import Authority, Pair

HOST = "127.0.0.1"


def make_authority(folder: Path) -> Authority:
    """A new one."""
    return Authority(folder)


def server_pair(authority: Authority, name: str = "server") -> Pair:
    """A server's certificate for this machine."""
    return authority.server(name, (HOST, "localhost"))


def trusting_context(authority: Authority, client: Pair | None = None) -> ssl.SSLContext:
    """A client's side: it trusts this authority alone, and shows this certificate, if it has one."""
    context = ssl.create_default_context(cafile=authority.files.certificate)
    if client is not None:
        context.load_cert_chain(client.certificate, client.key)
    return context


def restrict_to_cbc(context: ssl.SSLContext) -> ssl.SSLContext:
    """The same side, speaking TLS 1.2 with CBC suites and nothing else."""
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(
        "ECDHE-ECDSA-AES256-SHA384:ECDHE-ECDSA-AES128-SHA256:ECDHE-RSA-AES256-SHA384:ECDHE+AES+SHA1:@SECLEVEL=1"
    )
    return context


def expired(authority: Authority, pair: Pair) -> None:
    """Make a certificate one that ended a minute ago."""
    key = serialization.load_pem_private_key(authority.files.key.read_bytes(), None)
    own = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
    now = dt.datetime.now(dt.UTC)
    old = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)]))
        .issuer_name(own.issuer)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=2))
        .not_valid_after(now - dt.timedelta(minutes=1))
        .add_extension(own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value, critical=False)
        .sign(key, hashes.SHA256())  # type: ignore[arg-type] # an ECDSA key
    )
    pair.certificate.write_bytes(old.public_bytes(serialization.Encoding.PEM))
