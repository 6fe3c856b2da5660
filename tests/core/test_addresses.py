"""Addresses of peers, and the site that limits count by."""

import pytest

from gateway.core.addresses import UNKNOWN_HOST, site_of


@pytest.mark.parametrize(
    ("host", "site"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", UNKNOWN_HOST),
        ("/run/gateway.sock", UNKNOWN_HOST),
    ],
)
def test_the_limited_unit_is_an_ipv4_address_or_an_ipv6_network(host: str, site: str) -> None:
    """One subscriber has a whole IPv6 network. A listener on ``::`` sees IPv4 clients in IPv6 form."""
    assert site_of(host) == site
