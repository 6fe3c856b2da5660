"""A door that shows a certificate and says nothing more: what clients make of it is the test."""

import contextlib
import socketserver
import ssl
import threading
from collections.abc import Iterator

from gateway.tls.ca import Pair
from tests.support.certificates import restrict_to_cbc


class _Door(socketserver.ThreadingTCPServer):
    daemon_threads = True
    context: ssl.SSLContext | None = None


class _Visit(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        context = self.server.context if isinstance(self.server, _Door) else None
        with contextlib.suppress(OSError):
            if context is None:
                self.request.recv(1024)
                self.request.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            else:
                context.wrap_socket(self.request, server_side=True).close()


@contextlib.contextmanager
def tls_server(pair: Pair | None, *, cbc: bool = False) -> Iterator[int]:
    """The port on this machine; ``None``: it speaks no TLS. With ``cbc`` it speaks suites with CBC alone."""
    with _Door(("127.0.0.1", 0), _Visit) as door:
        if pair is not None:
            door.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            door.context.load_cert_chain(pair.certificate, pair.key)
            if cbc:
                restrict_to_cbc(door.context)
        thread = threading.Thread(target=door.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield int(door.server_address[1])
        finally:
            door.shutdown()
            thread.join()
