"""Loading of settings, once: defaults, then a TOML file, then the environment, then options.

Each value keeps its source. An error for a wrong value names the setting, its source and what it should be. No error
repeats a broker's password.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from pydantic import ValidationError, model_validator

from gateway.core.addresses import Address, BrokerUrl, masked_url
from gateway.core.redaction import MASK, redact
from gateway.errors import GatewayError
from gateway.runtime.private_files import ForeignFileError, read_trusted
from gateway.settings import conflicts
from gateway.settings.conflicts import ConflictingSettingsError
from gateway.settings.sign_in import SignInFields
from gateway.settings.types import DIRECTORY, FILE, Form

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

__all__ = ["Address", "BrokerUrl", "Loaded", "Settings", "SettingsError", "load"]

CONFIG_NAME: Final = "gateway.toml"
PREFIX: Final = "GATEWAY_"
CONFIG_VARIABLE: Final = "GATEWAY_CONFIG"
NOT_SETTINGS: Final = frozenset({CONFIG_VARIABLE, "GATEWAY_URL", "GATEWAY_API_KEY", "GATEWAY_CA_FILE"})


class Settings(SignInFields):
    """All settings in force. Settings that contradict each other, or would be unsafe together, are refused."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        conflicts.check(self)
        return self


FIELDS: Final[Mapping[str, FieldInfo]] = Settings.model_fields
_WORD: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_URLS: Final = ("broker", "broker_api_url", "database")
_PASSWORD_IN_URL: Final = re.compile(r"://[^/@]*:[^/@]+@")
_PATHS: Final = frozenset(
    name for name, field in FIELDS.items() if any(item in (DIRECTORY, FILE) for item in field.metadata)
)


class SettingsError(GatewayError):
    """The settings cannot be used; ``problems`` has one sentence for each, ``message`` all of them by line."""

    code = "invalid_settings"

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True)
class Loaded:
    """The settings in force, the source of each, the file that was read, and warnings."""

    settings: Settings
    sources: Mapping[str, str]
    config_file: Path | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Given:
    """A value as it was written, and its source."""

    value: object
    source: str


def load(options: Mapping[str, object], environ: Mapping[str, str], config: Path | None = None) -> Loaded:
    """Return the settings from all sources.

    ``options`` are by name of the setting, None where an option was not given. ``config`` is the file of ``--config``.
    Without it the file is ``GATEWAY_CONFIG``, or ``gateway.toml`` in the data directory, if there is one.

    Raises:
        SettingsError: one is wrong.
    """
    nearer = _from_environment(environ) | _from_options(options)
    file, required = _config_file(nearer, environ, config)
    given = _from_file(file, must_exist=required) | nearer
    return Loaded(
        _validated(given), _sources(given), file if file.exists() else None, tuple(_warnings(options, environ))
    )


def option_name(name: str) -> str:
    """Return the name of a setting on the command line."""
    return "--" + name.replace("_", "-")


def variable_name(name: str) -> str:
    """Return the name of a setting in the environment."""
    return PREFIX + name.upper()


def plain(value: object) -> str | int | float | bool | list[str] | None:
    """Return a setting's value for people and JSON. A broker's URL masks its password itself."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    return [str(item) for item in value] if isinstance(value, list | tuple) else str(value)


def form(name: str) -> str:
    """Return how a setting's value is written: ``HOST:PORT``, ``N``, ``auto|console|json``."""
    return next(item.text for item in FIELDS[name].metadata if isinstance(item, Form))


def group(name: str) -> str:
    """Return the heading of a setting in help and documentation."""
    extra = FIELDS[name].json_schema_extra
    return str(extra["group"]) if isinstance(extra, dict) else ""


def written(value: object) -> str:
    """Return a setting's value as it is written in the environment; a password in it is masked."""
    shown = plain(value)
    if isinstance(shown, list):
        return ",".join(shown)
    if isinstance(shown, bool):
        return "true" if shown else "false"
    return "none" if shown is None else str(shown) or '""'


def bounds(name: str) -> tuple[float, float] | None:
    """Return the smallest and the largest value of a setting that is a number."""
    found = {key: getattr(item, key) for item in FIELDS[name].metadata for key in ("ge", "le") if hasattr(item, key)}
    return (found["ge"], found["le"]) if found else None


def expected(name: str) -> str:
    """Return what a setting should be, from its type and bounds: ``a whole number from 5 to 3600``."""
    limits = bounds(name)
    if limits is None:
        return "one of " + form(name).replace("|", ", ")
    number = "a whole number" if FIELDS[name].annotation is int else "a number"
    return f"{number} from {plain(float(limits[0]))} to {plain(float(limits[1]))}"


def _from_options(options: Mapping[str, object]) -> dict[str, Given]:
    return {name: Given(value, f"option {_flag(name, value)}") for name, value in options.items() if value is not None}


def _flag(name: str, value: object) -> str:
    """Return the option as it was given: a no is ``--no-…``."""
    return f"--no-{option_name(name)[2:]}" if value is False else option_name(name)


def _from_environment(environ: Mapping[str, str]) -> dict[str, Given]:
    variables = {name: variable_name(name) for name in FIELDS}
    return {name: Given(environ[key], f"environment {key}") for name, key in variables.items() if key in environ}


def _warnings(options: Mapping[str, object], environ: Mapping[str, str]) -> Iterable[str]:
    for name in _URLS:
        if _PASSWORD_IN_URL.search(str(options.get(name) or "")):
            yield (
                f"option {option_name(name)} holds a password, and other users of this machine can read the options of "
                f"a running program: put that URL into {variable_name(name)} or the settings file"
            )
    yield from _unknown_variables(environ)


def _unknown_variables(environ: Mapping[str, str]) -> Iterable[str]:
    """Return warnings for unknown variables. Kubernetes sets GATEWAY_PORT… for a service named gateway."""
    known = {variable_name(name) for name in FIELDS} | NOT_SETTINGS
    for key in sorted(environ):
        if key.startswith(PREFIX) and key not in known:
            yield f"environment {key} is not a setting and has no effect{_did_you_mean(key, known)}"


def _config_file(nearer: Mapping[str, Given], environ: Mapping[str, str], config: Path | None) -> tuple[Path, bool]:
    """Return the file to read, and whether it was named, so that it must exist."""
    named = config or (Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None)
    if named is not None:
        return named.expanduser(), True
    data_dir = nearer.get("data_dir")
    folder = FIELDS["data_dir"].default if data_dir is None else Path(str(data_dir.value)).expanduser()
    return folder / CONFIG_NAME, False


def _from_file(file: Path, *, must_exist: bool) -> dict[str, Given]:
    """Return the settings of a TOML file; relative paths in it start at its folder."""
    values = _read_toml(file, named=must_exist)
    if unknown := [key for key in values if key not in FIELDS]:
        raise SettingsError(f"{file}: {key!r} is not a setting{_did_you_mean(key, FIELDS)}" for key in unknown)
    if "data_dir" in values and not must_exist:
        raise SettingsError([f"{file}: data_dir can't be set in the file that was found in the data directory"])
    return {key: Given(_placed(key, value, file), f"{file.name}:{key}") for key, value in values.items()}


def _read_toml(file: Path, *, named: bool) -> dict[str, object]:
    """Parse a TOML file. One that was not named is accepted only when this user or root owns it."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8") if named else read_trusted(file))
    except ForeignFileError as error:
        raise SettingsError([f"{file}: {error.message}"]) from None
    except (FileNotFoundError, NotADirectoryError):
        if not named:
            return {}
        raise SettingsError([f"{file}: no such file; --config and {CONFIG_VARIABLE} name a TOML file"]) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SettingsError([f"{file}: should be a readable TOML file: {reason}"]) from None


def _placed(name: str, value: object, file: Path) -> object:
    relative = name in _PATHS and isinstance(value, str) and value not in ("", "none") and not value.startswith("~")
    return str(file.parent / str(value)) if relative else value


def _validated(given: Mapping[str, Given]) -> Settings:
    try:
        return Settings.model_validate({name: item.value for name, item in given.items()})
    except ValidationError as invalid:
        raise SettingsError(_problem(error, given) for error in invalid.errors()) from None


def _problem(error: ErrorDetails, given: Mapping[str, Given]) -> str:
    cause = error.get("ctx", {}).get("error")
    name = cause.setting if isinstance(cause, ConflictingSettingsError) else str(error["loc"][0])
    should = str(cause) if cause else f"should be {expected(name)}"
    item = given.get(name, Given(plain(FIELDS[name].default), "default"))
    return f"{name}: {_shown(name, item.value)} (from {item.source}) {should}"


def _shown(name: str, value: object) -> str:
    """Return a wrong value as it may be printed: any part of what should be a broker's URL may be its password.

    A plain word is no part of a URL. It is a misspelt kind of broker.
    """
    if name in ("broker_api_url", "database"):
        return repr(MASK)
    if name == "broker" and not _WORD.fullmatch(str(value)):
        return repr(masked_url(str(value)))
    return redact(repr(value if isinstance(value, str) else plain(value)))[:200]


def _sources(given: Mapping[str, Given]) -> dict[str, str]:
    return {name: given[name].source if name in given else "default" for name in FIELDS}


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
