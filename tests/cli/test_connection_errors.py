"""A gateway whose certificate is not trusted: the command line says what to do about it on this side."""

from pathlib import Path

import pytest

from gateway.tls.ca import Authority, Pair
from tests.cli.support import Cli
from tests.support.certificates import expired, make_authority, server_pair
from tests.support.hostile_gateway import ESCAPED, hostile_gateway
from tests.support.tls_server import tls_server


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """One that no system knows."""
    return make_authority(tmp_path / "tls")


def said(cli: Cli, pair: Pair | None, *options: str, host: str = "127.0.0.1", code: int = 1) -> str:
    """What the command line says of a gateway with this certificate."""
    with tls_server(pair) as port:
        return cli("devices", "list", "--url", f"https://{host}:{port}", *options, code=code).err


@pytest.fixture(autouse=True)
def _key(empty: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    del empty
    monkeypatch.setenv("GATEWAY_API_KEY", "sk_live_000000000000")


def test_an_unknown_authority_is_an_error(empty: Cli, authority: Authority) -> None:
    """The option and the variable that name it; nothing of the settings that ``serve`` has."""
    error = said(empty, server_pair(authority))
    assert "is not trusted" in error
    assert "--ca-file or GATEWAY_CA_FILE" in error
    assert "cert_file" not in error


def test_a_certificate_of_another_authority_is_an_error(empty: Cli, authority: Authority, tmp_path: Path) -> None:
    """The file that was given is named: it is the wrong one."""
    other = make_authority(tmp_path / "other").files.certificate
    assert f"The authority in {other} did not sign it" in said(empty, server_pair(authority), "--ca-file", str(other))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_certificate_of_another_host_is_an_error(empty: Cli, authority: Authority, host: str) -> None:
    """An address or a name that the certificate does not have."""
    pair = authority.server("other", ["gateway.example"])
    error = said(empty, pair, "--ca-file", str(authority.files.certificate), host=host)
    assert "Name the gateway in --url or GATEWAY_URL as its certificate does" in error


def test_an_expired_certificate_is_an_error(empty: Cli, authority: Authority) -> None:
    """It is not the reader's authority that is wrong."""
    pair = server_pair(authority)
    expired(authority, pair)
    assert "Have it renewed" in said(empty, pair, "--ca-file", str(authority.files.certificate))


def test_the_answer_of_another_server_is_escaped(empty: Cli) -> None:
    """Escapes, text that turns around, and lines that look like ours are written out, in its words and in its code."""
    with hostile_gateway() as url:
        told = empty("devices", "list", "--url", url, code=1).err
    assert ESCAPED in told
    assert told.isascii()
    assert len(told.splitlines()) == 1


def test_https_to_a_plain_http_port_is_an_error(empty: Cli) -> None:
    """The URL says https, and what answers does not speak it."""
    assert "plain http://" in said(empty, None)


def test_http_to_a_tls_port_is_an_error(empty: Cli, authority: Authority) -> None:
    """The URL says http, and what answers speaks TLS alone."""
    with tls_server(server_pair(authority)) as port:
        assert "begin with https://" in empty("devices", "list", "--url", f"http://127.0.0.1:{port}", code=1).err


@pytest.mark.parametrize("content", [None, "no PEM"])
def test_an_invalid_authority_file_is_an_error(empty: Cli, tmp_path: Path, content: str | None) -> None:
    """Not there, or something else: wrong usage of this very option."""
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    error = said(empty, None, "--ca-file", str(file), code=2)
    assert "--ca-file or GATEWAY_CA_FILE should name a PEM file" in error
    assert str(file) in error


def test_an_unresolvable_host_is_an_error(empty: Cli) -> None:
    """The host is named, and what to look at."""
    error = empty("devices", "list", "--url", "http://no-such-host.invalid:8080", code=1).err
    assert "The host name no-such-host.invalid cannot be resolved" in error


def test_a_url_with_a_path_is_an_error(empty: Cli) -> None:
    """The API's paths are the client's business: the message has the URL that works."""
    error = empty("devices", "list", "--url", "http://127.0.0.1:8080/v1", code=2).err
    assert "should have no path: http://127.0.0.1:8080 instead of http://127.0.0.1:8080/v1" in error


@pytest.mark.parametrize(("key", "state"), [("", "is empty"), (None, "is not set")])
def test_a_missing_key_is_an_error(key: str | None, state: str, empty: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is set to nothing is told from one that is not set."""
    monkeypatch.delenv("GATEWAY_API_KEY")
    if key is not None:
        monkeypatch.setenv("GATEWAY_API_KEY", key)
    error = empty("devices", "list", "--url", "http://127.0.0.1:8080", code=2).err
    assert f"GATEWAY_API_KEY has to hold an API key, and it {state}." in error
