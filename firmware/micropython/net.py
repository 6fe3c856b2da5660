"""TCP connections, and TLS that accepts only what the site's certificate authority signed."""

import asyncio
import binascii
import ssl

CONNECT_SECONDS = 15


def trust(authority):
    """Return a TLS context that trusts one certificate authority (PEM or DER) and refuses every other server.

    Make it once: it has 3 KB in one piece, which a heap in use may not have.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_mode = ssl.CERT_REQUIRED  # MicroPython starts with CERT_NONE
    context.load_verify_locations(cadata=der(authority))
    return context


def der(certificate):
    """Return a certificate as DER: most builds of MicroPython read no PEM. Of several in a file, take the first."""
    if not certificate.startswith(b"-----"):
        return certificate
    return binascii.a2b_base64(certificate.split(b"-----")[2])


def close(stream):
    """Close the socket at once. MicroPython's `Stream.close` does nothing, and a broker would keep the session."""
    stream.s.close()


async def connect(host, port, tls, trusted):
    """Return the two ends of a connection; `trusted` is what `trust` returned. The certificate must name `host`.

    Raises OSError for TLS without it: there is no TLS without verification, and no way back to plain TCP.
    """
    if tls and trusted is None:
        raise OSError("TLS needs the certificate authority of the site: set ca_file in the configuration")
    opening = (
        asyncio.open_connection(host, port, ssl=trusted, server_hostname=host)
        if tls
        else asyncio.open_connection(host, port)
    )
    return await asyncio.wait_for(opening, CONNECT_SECONDS)
