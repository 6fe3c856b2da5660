"""URL of a broker's management API, through which the gateway cuts sessions. It is printed without its secret."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import quote, unquote, urlsplit

from pydantic import SecretStr

from gateway.core.addresses import Address
from gateway.core.redaction import MASK

API_FORM: Final = (
    "rabbitmq+http[s]://USER:PASSWORD@HOST:PORT, emqx+http[s]://KEY:SECRET@HOST:PORT or vernemq+http[s]://KEY@HOST:PORT"
)
KINDS: Final = ("rabbitmq", "emqx", "vernemq")


@dataclass(frozen=True)
class BrokerApi:
    """The API of a broker of this kind. Password and key are hidden however it is printed."""

    kind: str
    scheme: str
    address: Address
    username: SecretStr
    password: SecretStr

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse KIND+http://user:password@host:port.

        Raises:
            ValueError: the text is no such URL; the message never repeats it.
        """
        try:
            parts = urlsplit(text)
            kind, _, scheme = parts.scheme.partition("+")
            address = Address.parse(parts.netloc.rpartition("@")[2])
        except ValueError:
            raise ValueError(f"should be {API_FORM}") from None
        more = parts.path.strip("/") or parts.query or parts.fragment
        if kind not in KINDS or scheme not in ("http", "https") or more or not parts.username or not address.port:
            raise ValueError(f"should be {API_FORM}")
        return cls(kind, scheme, address, _secret(parts.username), _secret(parts.password or ""))

    @property
    def base_url(self) -> str:
        """Return the URL without credentials."""
        return f"{self.scheme}://{self.address}"

    def __str__(self) -> str:
        user = MASK if self.kind == "vernemq" else quote(self.username.get_secret_value(), safe="")
        secret = f":{MASK}" if self.password.get_secret_value() else ""
        return f"{self.kind}+{self.scheme}://{user}{secret}@{self.address}"


def _secret(text: str) -> SecretStr:
    return SecretStr(unquote(text))
