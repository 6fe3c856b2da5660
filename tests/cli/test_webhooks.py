"""``gateway webhooks``: made, changed, tested, looked at and deleted from the command line."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.cli.support import Cli


class _Receiver(BaseHTTPRequestHandler):
    status = 204

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def receiver(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> object:
    """The URL of a program that takes whatever comes; webhooks may lead there."""
    del cli  # it clears the environment first
    monkeypatch.setenv("GATEWAY_WEBHOOK_ALLOW_LOOPBACK", "true")
    server = HTTPServer(("127.0.0.1", 0), _Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_webhook_is_created_changed_and_deleted(cli: Cli, receiver: str) -> None:
    """Its secret is shown once; a test reaches the receiver; what is not named stays as it is."""
    made = cli("webhooks", "create", receiver, "--event", "reset.completed", "--description", "Returns desk")
    assert "whsec_" in made.out
    assert "not shown again" in made.err
    (listed,) = cli.json("webhooks", "list")
    webhook = listed["id"]
    assert "secret" not in listed
    assert (listed["events"], listed["enabled"]) == (["reset.completed"], True)
    changed = cli.json("webhooks", "set", webhook, "--event", "reset.failed", "--event", "reset.completed", "--disable")
    assert (set(changed["events"]), changed["enabled"]) == ({"reset.failed", "reset.completed"}, False)
    assert changed["description"] == "Returns desk"
    assert cli.json("webhooks", "show", webhook) == changed
    assert cli.json("webhooks", "test", webhook)["response_status"] == 204
    assert cli.json("webhooks", "deliveries", webhook, "--status", "failed") == []
    rotated = cli("webhooks", "rotate", webhook, "--overlap", "2h")
    assert "whsec_" in rotated.out
    assert "not shown again" in rotated.err
    assert cli.json("webhooks", "show", webhook)["previous_secret_expires_at"] is not None
    assert cli.json("webhooks", "rotate", webhook, "--end-overlap")["previous_secret_expires_at"] is None
    changed = cli.json("webhooks", "show", webhook)
    assert cli("webhooks", "deliveries", webhook).out.startswith("ID")
    assert "has no delivery" in cli("webhooks", "replay", webhook, "dlv_never", code=4).err
    assert "add --yes" in cli("webhooks", "delete", webhook, code=2).err
    cli("webhooks", "delete", webhook, "--yes")
    assert cli.json("webhooks", "list") == []


def test_a_failed_test_delivery_sets_the_exit_code(cli: Cli, receiver: str) -> None:
    """1, and what came back."""
    webhook = cli.json("webhooks", "create", receiver)["id"]
    _Receiver.status = 500
    try:
        said = cli("webhooks", "test", webhook, code=1)
    finally:
        _Receiver.status = 204
    assert "500" in said.out


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("create", "ftp://example.com/"), 1, "url"),
        (("create", "https://example.com/", "--event", "reset.done"), 1, "events"),
        (("set", "wh_never"), 2, "Say what to change"),
        (("show", "wh_never"), 4, ""),
    ],
)
def test_invalid_input_is_named(arguments: tuple[str, ...], code: int, says: str, cli: Cli) -> None:
    """The field, and what it should be."""
    cli.bound("BP-1")
    assert says in cli("webhooks", *arguments, code=code).err
