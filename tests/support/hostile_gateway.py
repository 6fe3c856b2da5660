"""An HTTP server that says no in words that would steer a terminal."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

HOSTILE: Final = "x\x1b[2J\x9b1m\u202eevil\u200b\u2028error: all is well"
ESCAPED: Final = "x\\x1b[2J\\x9b1m\\u202eevil\\u200b\\u2028error: all is well"
_ANSWER: Final = json.dumps({"error": {"code": HOSTILE, "message": HOSTILE, "details": {}}}).encode()


class _Visit(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(403)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(_ANSWER)))
        self.end_headers()
        self.wfile.write(_ANSWER)

    do_POST = do_GET  # noqa: N815 - the standard library's name

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def hostile_gateway() -> Iterator[str]:
    """Its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Visit) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
