"""Values of the sign-in's settings: which claim gives which role, and the addresses of provider and gateway."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Annotated, Final, NamedTuple
from urllib.parse import urlsplit

from pydantic import BeforeValidator, PlainSerializer, PlainValidator

from gateway.core.roles import ROLES, Role
from gateway.settings.types import Form

RULE_FORM: Final = "VALUE=PROJECT:ROLE"
_NONE: Final = ("", "none")
_RULE: Final = re.compile(rf"(?P<value>.{{1,256}})=(?P<project>[^=:]{{1,64}}):(?P<role>{'|'.join(ROLES)})")
_MOST_RULES: Final = 200
_CLAIM: Final = re.compile(r"[\x21-\x7e]{1,256}")
_SCOPES: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*")
_URL: Final = re.compile(r"https?://[A-Za-z0-9.\[\]:-]+(/[A-Za-z0-9._~%/-]*)?")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_CLIENT_ID: Final = re.compile(r"[\x20-\x7e]{1,256}")


class RoleRule(NamedTuple):
    """People whose claim has this value get this role in this project; ``project`` is an id or a name."""

    value: str
    project: str
    role: Role

    def __str__(self) -> str:
        """Return it as it is written."""
        return f"{self.value}={self.project}:{self.role}"


def is_loopback_url(url: str) -> bool:
    """Return whether a URL leads to the machine itself: localhost, 127.0.0.1, [::1]."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _rules(value: object) -> tuple[RoleRule, ...]:
    given = value.split(",") if isinstance(value, str) else value
    if value in _NONE:
        return ()
    if not isinstance(given, list | tuple) or len(given) > _MOST_RULES:
        raise ValueError(f"should be at most {_MOST_RULES} times {RULE_FORM}, for example fleet-admins=one:admin")
    return tuple(each if isinstance(each, RoleRule) else _rule(each) for each in given)


def _rule(text: object) -> RoleRule:
    found = _RULE.fullmatch(text.strip()) if isinstance(text, str) else None
    if found is None:
        shown = f"'{text.strip()[:80]}'" if isinstance(text, str) else "a value"
        raise ValueError(
            f"should be {RULE_FORM} each, with {', '.join(ROLES)} as role and a project's id or name, for example "
            f"fleet-admins=one:admin; {shown} is not"
        )
    role = next(each for each in ROLES if each == found["role"])
    return RoleRule(found["value"], found["project"], role)


def _url(value: object) -> str | None:
    if value is None or value in _NONE:
        return None
    if not isinstance(value, str) or not _URL.fullmatch(value) or not _has_host(value):
        raise ValueError(
            "should be an https:// URL without user, query and fragment, such as https://login.example.com"
        )
    return value


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _public_url(value: object) -> str | None:
    """Return the address as browsers write its origin: in lower case, without the port that the scheme has anyway."""
    url = _url(value)
    if url is None:
        return None
    parts = urlsplit(url)
    place = parts.netloc.lower().removesuffix(f":{_DEFAULT_PORTS[parts.scheme]}")
    return f"{parts.scheme}://{place}{parts.path.rstrip('/')}"


def _matching(pattern: re.Pattern[str], words: str) -> BeforeValidator:
    def check(value: object) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise ValueError(f"should be {words}")
        return value

    return BeforeValidator(check)


def _client_id(value: object) -> str | None:
    if value is None or value in _NONE:
        return None
    if not isinstance(value, str) or not _CLIENT_ID.fullmatch(value):
        raise ValueError("should be the client id that the provider gave, 1 to 256 ASCII characters")
    return value


def _texts(rules: tuple[RoleRule, ...]) -> list[str]:
    return [str(rule) for rule in rules]


MaybeUrl = Annotated[str | None, PlainValidator(_url), Form("URL|none")]
MaybePublicUrl = Annotated[str | None, PlainValidator(_public_url), Form("URL|none")]
MaybeClientId = Annotated[str | None, PlainValidator(_client_id), Form("ID|none")]
RoleRules = Annotated[
    tuple[RoleRule, ...], PlainValidator(_rules), PlainSerializer(_texts), Form(f"{RULE_FORM},{RULE_FORM}")
]
Claim = Annotated[
    str, _matching(_CLAIM, "the name of a claim, with a dot between levels, such as groups"), Form("NAME")
]
OidcScopes = Annotated[str, _matching(_SCOPES, "scopes with spaces between, openid among them"), Form("SCOPE SCOPE")]
