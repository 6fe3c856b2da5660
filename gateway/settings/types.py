"""Types of settings: each is read from text or TOML alike, and each error says what the value should be."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator

from gateway.core.addresses import ADDRESS_FORM, BROKER_FORM, Address, BrokerUrl
from gateway.core.postgres_address import FORM as DATABASE_FORM
from gateway.core.postgres_address import PostgresAddress
from gateway.settings.broker_api import API_FORM, BrokerApi

EMBEDDED: Final = "embedded"
MOSQUITTO: Final = "mosquitto"
AUTO: Final = "auto"
OWN_BROKERS: Final = (EMBEDDED, MOSQUITTO, AUTO)
"""Values of ``broker`` other than the URL of an external one."""
_NONE: Final = ("", "none")
_COLLECTOR: Final = re.compile(r"https?://[A-Za-z0-9_.:\[\]-]{1,253}(/[\w./-]*)?")
_PREFIX: Final = re.compile(r"([A-Za-z0-9_.-]{1,64}/){0,8}")
_GATEWAY_ID: Final = re.compile(r"[A-Za-z0-9_]{1,64}")
_MODEL: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_MOST_MODELS: Final = 100
HOME: Final = "home"
"""Value of ``cells``: each device has one broker."""
ANY_HOST: Final = "*"
_HOST: Final = re.compile(r"\*|(\*\.)?[A-Za-z0-9_-][A-Za-z0-9._-]{0,252}")
_MOST_HOSTS: Final = 100


@dataclass(frozen=True)
class Form:
    """How a value is written, for the help and the documentation."""

    text: str


def _text(value: object, form: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"should be {form}")  # noqa: TRY004 - pydantic reports ValueErrors, a TypeError would escape
    return value


def _address(value: object) -> Address:
    return value if isinstance(value, Address) else Address.parse(_text(value, ADDRESS_FORM))


def _reachable(value: object) -> Address | None:
    if value is None or value in _NONE:
        return None
    address = _address(value)
    if address.port == 0 or address.is_wildcard:
        raise ValueError("should be a HOST:PORT that devices can connect to, or none")
    return address


def _maybe_address(value: object) -> Address | None:
    return None if value is None or value in _NONE else _address(value)


def _broker_api(value: object) -> BrokerApi | None:
    if value is None or value in _NONE or isinstance(value, BrokerApi):
        return value if isinstance(value, BrokerApi) else None
    return BrokerApi.parse(_text(value, API_FORM))


def _database(value: object) -> PostgresAddress | None:
    if value is None or value in _NONE or isinstance(value, PostgresAddress):
        return value if isinstance(value, PostgresAddress) else None
    return PostgresAddress.parse(_text(value, DATABASE_FORM))


def _broker(value: object) -> BrokerUrl | str:
    if value in OWN_BROKERS or isinstance(value, BrokerUrl):
        return value
    return BrokerUrl.parse(_text(value, BROKER_FORM))


def _path(value: object) -> Path:
    if isinstance(value, Path):
        return value.expanduser()
    text = _text(value, "a path")
    if not text or "\0" in text:
        raise ValueError("should be a path")
    return Path(text).expanduser()


def _maybe_path(value: object) -> Path | None:
    return None if value is None or value in _NONE else _path(value)


def _prefix(value: object) -> str:
    if not _PREFIX.fullmatch(_text(value, "text")) or str(value).startswith("devices/"):
        raise ValueError("should be empty or levels of letters, digits, _ . - each ending with /, for example site1/")
    return str(value)


def _collector(value: object) -> str | None:
    if value is None or value in _NONE:
        return None
    if not _COLLECTOR.fullmatch(_text(value, "text")):
        raise ValueError(
            "should be an http:// or https:// URL without user and password, such as http://127.0.0.1:4318"
        )
    return str(value)


def _discovery_prefix(value: object) -> str:
    if not _PREFIX.fullmatch(f"{_text(value, 'text')}/") or not value:
        raise ValueError("should be levels of letters, digits, _ . - with / between them, for example homeassistant")
    return str(value)


def _broker_id(value: object) -> str:
    if not _GATEWAY_ID.fullmatch(_text(value, "text")):
        raise ValueError("should be 1 to 64 letters, digits or _")
    return str(value)


def _gateway_id(value: object) -> str | None:
    if value is None or value in _NONE:
        return None
    if not _GATEWAY_ID.fullmatch(_text(value, "text")):
        raise ValueError("should be 1 to 64 letters, digits or _, or none to have one made at the first start")
    return str(value)


def _models(value: object) -> tuple[str, ...]:
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(n, str) and _MODEL.fullmatch(n) for n in names):
        raise ValueError(
            "should be names of letters, digits, _ . - with commas between, for example bota_pin,bota_note"
        )
    if not 0 < len(names) <= _MOST_MODELS or len(set(names)) < len(names):
        raise ValueError(f"should be 1 to {_MOST_MODELS} names, each once")
    return tuple(names)


def _hosts(value: object) -> tuple[str, ...]:
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(n, str) and _HOST.fullmatch(n) for n in names):
        raise ValueError(
            "should be auto, * or host names without a port, with commas between, for example "
            "api.example.com,*.fleet.example.com"
        )
    if not 0 < len(names) <= _MOST_HOSTS or (len(names) > 1 and {AUTO, ANY_HOST} & set(names)):
        raise ValueError(f"should be auto alone, * alone, or 1 to {_MOST_HOSTS} host names")
    return tuple(name.lower().rstrip(".") for name in names)


def _number(value: object) -> object:
    if isinstance(value, bool):  # pydantic would take true for 1
        raise ValueError("should be a number, not true or false")  # noqa: TRY004 - as above
    return value


def _optional(value: object) -> object:
    return None if value in _NONE else value


def _as_text(value: object) -> object:
    """Return the value as text: MQTT version 5 may stand in TOML without quotes, words may be in capitals."""
    return str(value).lower() if isinstance(value, str | int) else value


DIRECTORY: Final = Form("DIR")
FILE: Final = Form("FILE|none")
_AS_TEXT: Final = PlainSerializer(str, when_used="json-unless-none")  # a broker's password is masked by its str
HostPort = Annotated[Address, PlainValidator(_address), _AS_TEXT, Form("HOST:PORT")]
MaybeHostPort = Annotated[Address | None, PlainValidator(_maybe_address), _AS_TEXT, Form("HOST:PORT|none")]
Reachable = Annotated[Address | None, PlainValidator(_reachable), _AS_TEXT, Form("HOST:PORT|none")]
Broker = Annotated[
    BrokerUrl | Literal["embedded", "mosquitto", "auto"],
    PlainValidator(_broker),
    _AS_TEXT,
    Form("embedded|mosquitto|auto|URL"),
]
MaybeBrokerApi = Annotated[BrokerApi | None, PlainValidator(_broker_api), _AS_TEXT, Form("KIND+URL|none")]
MaybeDatabase = Annotated[PostgresAddress | None, PlainValidator(_database), _AS_TEXT, Form("URL|none")]
MaybeCollector = Annotated[str | None, PlainValidator(_collector), Form("URL|none")]
Directory = Annotated[Path, BeforeValidator(_path), DIRECTORY]
File = Annotated[Path | None, BeforeValidator(_maybe_path), FILE]
DiscoveryPrefix = Annotated[str, PlainValidator(_discovery_prefix), Form("PREFIX")]
TopicPrefix = Annotated[str, PlainValidator(_prefix), Form("PREFIX/")]
BrokerId = Annotated[str, PlainValidator(_broker_id), Form("ID")]
GatewayId = Annotated[str | None, PlainValidator(_gateway_id), Form("ID|none")]
Models = Annotated[tuple[str, ...], BeforeValidator(_models), Form("NAME,NAME")]
Hosts = Annotated[tuple[str, ...], BeforeValidator(_hosts), Form("auto|*|NAME,NAME")]
Count = Annotated[int, BeforeValidator(_number), Form("N")]
Seconds = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False), Form("SECONDS")]
Hours = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False), Form("HOURS")]
YesNo = Annotated[bool, Form("true|false")]
MaybeYesNo = Annotated[bool | None, BeforeValidator(_optional), Form("true|false|none")]
MqttVersion = Annotated[Literal["auto", "5", "3.1.1"], BeforeValidator(_as_text), Form("auto|5|3.1.1")]
Cells = Annotated[Literal["any", "home"], BeforeValidator(_as_text), Form("any|home")]
LogLevel = Annotated[
    Literal["debug", "info", "warning", "error"], BeforeValidator(_as_text), Form("debug|info|warning|error")
]
LogFormat = Annotated[Literal["auto", "console", "json"], BeforeValidator(_as_text), Form("auto|console|json")]
