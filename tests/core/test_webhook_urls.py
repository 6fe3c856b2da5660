"""Where webhooks may go: URLs taken apart, and addresses judged."""

import contextlib
import itertools
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.webhook_urls import WebhookUrl, check_url, is_public, may_connect

PUBLIC = ["8.8.8.8", "192.88.98.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
NOT_PUBLIC = [
    *("127.0.0.1", "127.255.0.1", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254"),  # noqa: S104
    *("100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "fe80::1", "fe80::1%1", "fc00::1", "fd12::1", "fec0::1", "ff02::1", "2001:db8::1", "2001::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::7f00:1", "64:ff9b::a00:1", "64:ff9b::7f00:1", "64:ff9b:1::1"),
    *("2002:a00:1::1", "2002:7f00:1::1", "100::1", "192.0.0.1", "192.88.99.1", "198.19.255.255", "198.51.100.1"),
    *("203.0.113.1", "100.127.255.255", "172.31.255.255", "0.1.2.3", "::8.8.8.8", "2001:0:808:808::1", "2001:20::1"),
    *("3fff::1", "5f00::1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1"),
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_accepted(address: str) -> None:
    """Also one that carries a public IPv4 address inside."""
    assert is_public(ip_address(address))


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_private_addresses_are_refused(address: str) -> None:
    """Private, link-local (the metadata of clouds), shared, reserved, multicast, and those that hide one inside."""
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://example.com", WebhookUrl("https", "example.com", 443, "/")),
        ("HTTPS://Example.COM:8443/Hooks?x=%20#".rstrip("#"), WebhookUrl("https", "example.com", 8443, "/Hooks?x=%20")),
        ("https://example.com?x=1", WebhookUrl("https", "example.com", 443, "/?x=1")),
        ("http://[::1]:8080/", WebhookUrl("http", "::1", 8080, "/")),
        ("https://a_b.example/", WebhookUrl("https", "a_b.example", 443, "/")),
    ],
)
def test_a_url_is_parsed_into_its_parts(url: str, target: WebhookUrl) -> None:
    """Scheme and host in lower case, the port that belongs to the scheme, path with query to the letter."""
    assert WebhookUrl.parse(url) == target


@pytest.mark.parametrize(
    ("url", "header"),
    [("https://example.com:443/", "example.com"), ("http://[::1]:8080/", "[::1]:8080"), ("http://[::1]/", "[::1]")],
)
def test_the_host_header_contains_host_and_port(url: str, header: str) -> None:
    """Without the port that goes without saying, and with brackets around IPv6."""
    assert WebhookUrl.parse(url).host_header == header


@pytest.mark.parametrize(
    "url",
    [
        *("", "example.com", "ftp://example.com", "file:///etc/passwd", "https://", "https:///x", "//example.com"),
        *("https://user@example.com", "https://user:pw@example.com/", "https://a@b@c/", "https://example.com#x"),
        *(
            "https://example.com:0/",
            "https://example.com:65536",
            "https://example.com:x",
            "https://[::1",
            "https://[x]/",
        ),
        *("https://exämple.com", "https://example.com/ü", "https://example.com/a b", "https://example.com\\@evil.com"),
        *("https://example.com/\r\nX: y", "https://example.com\n", " https://example.com", "https://[fe80::1%25eth0]/"),
        *(
            "https://[127.0.0.1]:1:2/",
            f"https://example.com/{'x' * 2_048}",
            "https://exa mple.com",
            "https://[1.2.3.4.5]",
        ),
    ],
)
def test_invalid_urls_are_refused(url: str) -> None:
    """Credentials, fragments, other schemes, odd characters: refused with a sentence that does not repeat the URL."""
    with pytest.raises(ValueError, match="should be an https:// URL") as caught:
        WebhookUrl.parse(url)
    assert "pw" not in str(caught.value)


@given(st.text() | st.from_regex(r"https?://[!-~]{1,40}", fullmatch=True))
def test_any_text_raises_at_most_value_error(url: str) -> None:
    """Whatever it is given, it reads a URL or refuses it; and what it read has no user in its host."""
    with contextlib.suppress(ValueError):
        target = WebhookUrl.parse(url)
        assert set("@/?#\\ ").isdisjoint(target.host)
        assert target.path.startswith("/")


@pytest.mark.parametrize(
    ("url", "needs"),
    [
        ("https://example.com/", ""),
        ("https://8.8.8.8/", ""),
        ("http://127.0.0.1:9000/", "loopback"),
        ("https://127.0.0.1:9000/", "loopback"),
        ("http://127.8.8.8/", "loopback"),
        ("http://localhost:9000/", "loopback"),
        ("https://[::1]/", "loopback"),
        ("http://example.com/", "private"),
        ("http://10.0.0.1/", "private"),
        ("https://10.0.0.1/", "private"),
        ("https://169.254.169.254/latest", "private"),
        ("https://[fd00::1]/", "private"),
        ("https://[::ffff:10.0.0.1]/", "private"),
        ("https://[::ffff:127.0.0.1]/", "private loopback"),
        ("https://[64:ff9b::7f00:1]/", "private loopback"),
        ("https://[2002:7f00:1::1]/", "private loopback"),
        ("https://[::7f00:1]/", "private loopback"),
        ("https://0.0.0.0/", "private loopback"),
        ("https://[::]/", "private loopback"),
    ],
)
def test_allowed_webhook_urls(url: str, needs: str) -> None:
    """https:// to the Internet; this very machine and private addresses each by a setting, hidden ones by both."""
    for allow_private, allow_loopback in itertools.product((False, True), repeat=2):
        given = {"private": allow_private, "loopback": allow_loopback}
        if all(given[each] for each in needs.split()):
            check_url(url, allow_private=allow_private, allow_loopback=allow_loopback)
        else:
            with pytest.raises(ValueError, match=r"webhook_allow_(private|loopback)"):
                check_url(url, allow_private=allow_private, allow_loopback=allow_loopback)


@pytest.mark.parametrize(
    "name", ["example.com", "localhost.example.com", "127.0.0.1.example.com", "2130706433", "127.1"]
)
def test_host_names_of_this_machine_are_refused(name: str) -> None:
    """Whatever it resolves to: only the word localhost and literal loopback addresses do."""
    target = WebhookUrl.parse(f"https://{name}/")
    for address in ("127.0.0.1", "::1", "0.0.0.0", "::", "::ffff:127.0.0.1"):  # noqa: S104 - where it leads
        for private, loopback in ((False, False), (True, False), (False, True)):
            assert not may_connect(target, ip_address(address), allow_private=private, allow_loopback=loopback)
    assert may_connect(target, ip_address("8.8.8.8"), allow_private=False, allow_loopback=False)


def test_loopback_matches_loopback_addresses_only() -> None:
    """What calls itself localhost leads nowhere else, also where private addresses are allowed."""
    target = WebhookUrl.parse("http://localhost/")
    for private in (False, True):
        assert not may_connect(target, ip_address("127.0.0.1"), allow_private=private, allow_loopback=False)
        for address, expected in (("127.0.0.1", True), ("10.0.0.1", False), ("8.8.8.8", False)):
            allowed = may_connect(target, ip_address(address), allow_private=private, allow_loopback=True)
            assert allowed is expected


@given(st.ip_addresses())
def test_addresses_private_to_python_are_never_public(ip: IPv4Address | IPv6Address) -> None:
    """The list of our own refuses at least as much."""
    if not ip.is_global or ip.is_multicast or ip.is_loopback:
        assert not is_public(ip) or (isinstance(ip, IPv6Address) and (ip.ipv4_mapped or ip.sixtofour or ip in _NAT64))


_NAT64 = ip_network("64:ff9b::/96")
