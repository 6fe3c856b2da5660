"""Address of a registry on PostgreSQL: a URL without its password, and the password apart from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from pydantic import SecretStr

from gateway.core.redaction import MASK

SCHEMES: Final = ("postgresql", "postgres")
FORM: Final = "postgresql://USER@HOST:PORT/DATABASE, for example postgresql://gateway@db1,db2/registry"
CONNECT_SECONDS: Final = 5
_TLS_MODES: Final = ("verify-full", "verify-ca", "require", "prefer", "allow", "disable")
_LOOPBACK: Final = ("", "localhost", "127.0.0.1", "[::1]", "::1")


@dataclass(frozen=True)
class PostgresAddress:
    """Where the registry is. ``url`` has no password, so it may be shown."""

    url: str
    password: SecretStr | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a URL; several hosts are separated by commas.

        Raises:
            ValueError: it is not such a URL; the message says what is wrong and never has the password.
        """
        parts, options = _split(text)
        user, at, hosts = parts.netloc.rpartition("@")
        named = dict(options)
        if not hosts.strip(",") and not named.get("host"):
            raise ValueError(f"names no host; it should be {FORM}")
        if not parts.path.strip("/"):
            raise ValueError(f"names no database; it should be {FORM}")
        if "sslpassword" in named:
            raise ValueError("should not have the password of a key (sslpassword): use a key without one")
        name, _, password = user.partition(":")
        kept = [(key, value) for key, value in options if key != "password"]
        query = urlencode(_with_tls(kept, hosts), quote_via=quote, safe="/,:")
        shown = SplitResult(parts.scheme, f"{name}{at}{hosts}", parts.path, query, "")
        secret = unquote(password) or named.get("password")
        return cls(urlunsplit(shown), SecretStr(secret) if secret else None)

    def __str__(self) -> str:
        return self.url if self.password is None else self.url.replace("@", f":{MASK}@", 1)

    @property
    def database(self) -> str:
        """Return the name of the database."""
        return unquote(urlsplit(self.url).path.strip("/"))


def _split(text: str) -> tuple[SplitResult, list[tuple[str, str]]]:
    """Return the parts of a URL, and its options."""
    try:
        parts = urlsplit(text)
        options = parse_qsl(parts.query, keep_blank_values=True, errors="strict")
    except ValueError:  # its text may quote the password
        raise ValueError(f"should be {FORM}") from None
    if parts.scheme not in SCHEMES:
        raise ValueError(f"should be {FORM}")
    return parts, options


def _with_tls(options: list[tuple[str, str]], hosts: str) -> list[tuple[str, str]]:
    """Return the options with what they must say of TLS: the server's certificate is verified, but for this machine."""
    mode = dict(options).get("sslmode")
    if mode is None:
        return [*options, ("sslmode", "prefer" if _are_local(options, hosts) else "verify-full")]
    if mode not in _TLS_MODES:
        raise ValueError(f"has the unknown sslmode '{mode}'; it should be one of {', '.join(_TLS_MODES)}")
    return options


def _are_local(options: list[tuple[str, str]], hosts: str) -> bool:
    """Return whether every host that the URL names is this machine.

    The options ``host`` and ``hostaddr`` name hosts, too. libpq connects to these and not to the host before the path.
    A ``service`` names them in a file, which may change, so it counts as another machine.
    """
    if "service" in dict(options):
        return False
    named = [host for key, value in options if key in {"host", "hostaddr"} for host in value.split(",")]
    return all(map(_is_local, hosts.split(","))) and all(_is_local_option(host) for host in named)


def _is_local(host: str) -> bool:
    """Return whether this host is this machine: a loopback address, or the folder of a socket."""
    return host in _LOOPBACK or host.partition(":")[0] in _LOOPBACK or host.startswith(("/", "%2F", "[::1]:"))


def _is_local_option(host: str) -> bool:
    """Return the same of a host without a port or brackets, as an option has it."""
    return host in _LOOPBACK or host.startswith("/")
