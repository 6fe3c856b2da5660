"""TLS of a device and its companion app: trusted authorities, and the device's certificate."""

import ssl

from device_sim.errors import SimulatorError

CIPHERS = "@SECLEVEL=2:ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2, in OpenSSL's format: no CBC, as the listeners of a gateway require."""


class CertificateError(SimulatorError):
    """A PEM file cannot be used."""


class _ClosingSocket(ssl.SSLSocket):
    """Socket that closes when its handshake fails; paho 2.2 leaves it open."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002  # the signature of ssl
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


def tls_context(ca_file: str | None, cert_file: str | None = None, key_file: str | None = None) -> ssl.SSLContext:
    """Return a context that verifies by `ca_file`, or else by the system's authorities, and shows `cert_file`.

    Raises:
        CertificateError: a file holds no PEM, or the key belongs to another certificate.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
        context.set_ciphers(CIPHERS)
        if cert_file is not None:
            context.load_cert_chain(cert_file, key_file)
    except OSError as error:
        used = ", ".join(file for file in (ca_file, cert_file, key_file) if file)
        raise CertificateError(f"{used} cannot be used for TLS: {error}") from error
    context.sslsocket_class = _ClosingSocket
    return context
