"""How a device and its companion app verify whom they talk to, and what the device shows of itself."""

import ssl

from device_sim.errors import SimulatorError

CIPHERS = "@SECLEVEL=2:ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2, as OpenSSL writes it: no CBC, as the listeners of a gateway ask."""


class CertificateError(SimulatorError):
    """A PEM file cannot be used."""


class _ClosingSocket(ssl.SSLSocket):
    """Closes when its handshake fails; paho 2.2 leaves such a socket open."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002  # the signature of ssl
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


def tls_context(ca_file: str | None, cert_file: str | None = None, key_file: str | None = None) -> ssl.SSLContext:
    """Verify by `ca_file`, or else by the system's authorities; show the certificate in `cert_file`, if there is one.

    Raises:
        CertificateError: a file holds no PEM, or the key is another certificate's.
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
