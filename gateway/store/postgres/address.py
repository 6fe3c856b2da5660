"""Address of a registry on PostgreSQL: a URL without its password, and the password apart from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from pydantic import SecretStr

from gateway.core.redaction import MASK

SCHEMES: Final = ("postgresql", "postgres")
FORM: Final = "postgresql://USER@HOST:PORT/DATABASE, for example postgresql://gateway@db1,db2/registry"
CONNECT_SECONDS: Final = 5
_TLS_MODES: Final = ("verify-full", "verify-ca", "require", "prefer", "allow", "disable")
_LOOPBACK: Final = ("", "localhost", "127.0.0.1", "[::1]")


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
        parts = urlsplit(text)
        if parts.scheme not in SCHEMES:
            raise ValueError(f"should be {FORM}")
        user, at, hosts = parts.netloc.rpartition("@")
        if not hosts.strip(","):
            raise ValueError(f"names no host; it should be {FORM}")
        if not parts.path.strip("/"):
            raise ValueError(f"names no database; it should be {FORM}")
        name, _, password = user.partition(":")
        shown = SplitResult(parts.scheme, f"{name}{at}{hosts}", parts.path, _with_tls(parts.query, hosts), "")
        return cls(urlunsplit(shown), SecretStr(unquote(password)) if password else None)

    def __str__(self) -> str:
        return self.url if self.password is None else self.url.replace("@", f":{MASK}@", 1)

    @property
    def database(self) -> str:
        """Return the name of the database."""
        return unquote(urlsplit(self.url).path.strip("/"))


def _with_tls(query: str, hosts: str) -> str:
    """Return the query with what it must say of TLS: the server's certificate is verified, but for this machine."""
    if "sslmode=" in query:
        mode = query.partition("sslmode=")[2].partition("&")[0]
        if mode not in _TLS_MODES:
            raise ValueError(f"has the unknown sslmode '{mode}'; it should be one of {', '.join(_TLS_MODES)}")
        return query
    local = all(each.partition(":")[0] in _LOOPBACK or each in _LOOPBACK for each in hosts.split(","))
    return "&".join(filter(None, (query, "sslmode=prefer" if local else "sslmode=verify-full")))
