"""TCP connections, TLS that accepts only what the site's certificate authority signed, and requests over HTTP."""

import asyncio
import binascii
import ssl

CONNECT_SECONDS = 15
ANSWER_SECONDS = 20
LONGEST_ANSWER = 16384


def trust(authority):
    """Return a TLS context that trusts one certificate authority (PEM or DER) and refuses every other server.

    Most builds of MicroPython read no PEM; of several certificates in a file the first counts.
    Make it once: it has 3 KB in one piece, which a heap in use may not have.
    """
    if authority.startswith(b"-----"):
        authority = binascii.a2b_base64(authority.split(b"-----")[2])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_mode = ssl.CERT_REQUIRED  # MicroPython starts with CERT_NONE
    context.load_verify_locations(cadata=authority)
    return context


def close(stream):
    """Close the socket at once. MicroPython's `Stream.close` does nothing, and a broker would keep the session."""
    stream.s.close()


async def connect(host, port, tls, trusted):
    """Return the two ends of a connection; `trusted` is what `trust` returned. The certificate must name `host`.

    Raises OSError for TLS without it: there is no TLS without verification, and no way back to plain TCP.
    """
    if tls and trusted is None:
        raise OSError("TLS needs the certificate authority of the site: set ca_file in the configuration")
    options = {"ssl": trusted, "server_hostname": host} if tls else {}
    return await asyncio.wait_for(asyncio.open_connection(host, port, **options), CONNECT_SECONDS)


async def post(url, trusted, token, payload, header=""):
    """Send one request to the gateway; return status, body, and the seconds of `Retry-After`.

    The URL begins with `http://`, else it means TLS. Raises one of `link.LOST` if no whole answer arrives.
    """
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    name, _, port = host.partition(":")
    tls = scheme != "http"
    reader, writer = await connect(name, int(port or (443 if tls else 80)), tls, trusted)
    head = f"POST /{path} HTTP/1.0\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n{header}"
    head += f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
    try:
        writer.write(head.encode() + payload)
        return await asyncio.wait_for(_answer(writer, reader), ANSWER_SECONDS)
    finally:
        close(writer)


async def _answer(writer, reader):
    await writer.drain()
    status = int((await reader.readline()).split(b" ")[1])
    headers, line = {}, b"-"
    while line.strip():
        line = await reader.readline()
        name, _, value = line.lower().partition(b":")
        headers[name] = value
    # A longer answer is cut, so it is no JSON.
    body = await reader.readexactly(min(int(headers.get(b"content-length", 0)), LONGEST_ANSWER))
    return status, body, int(headers.get(b"retry-after", 0))
