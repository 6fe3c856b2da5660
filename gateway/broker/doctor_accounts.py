"""The two accounts with which ``gateway doctor`` checks the broker from outside, while a gateway runs.

One reads which commands are retained. The other has the rights of a device that does not exist, to check that they do
not reach further. A running gateway keeps their passwords in the data directory: who can read that directory has the
registry anyway. They stay the same over a restart (:mod:`gateway.broker.own_passwords`).
"""

from __future__ import annotations

import contextlib
import hmac
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from gateway.broker.access_rules import MADE_UP
from gateway.runtime.private_files import replace_text
from gateway.settings.loading import FIELDS, Settings

FILE_NAME: Final = "doctor.json"
READER: Final = "doctor"
DEVICE: Final = MADE_UP
_SECRET_BYTES: Final = 32


def _secret() -> str:
    return secrets.token_urlsafe(_SECRET_BYTES)


def _whole(value: object) -> str:
    """Return all of a setting's value, also what its text form hides."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if is_dataclass(value):
        return "\0".join(_whole(getattr(value, each.name)) for each in fields(value))
    return str(value)


@dataclass(frozen=True)
class ProbeAccounts:
    """The passwords of :data:`READER` and :data:`DEVICE`."""

    reader: str = field(default_factory=_secret, repr=False)
    device: str = field(default_factory=_secret, repr=False)
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)
    """A digest of each setting that the gateway was started with. The doctor compares those of the settings file."""

    def of(self, settings: Settings) -> ProbeAccounts:
        """Return the same accounts, with the digests of these settings."""
        return replace(self, settings={name: self.digest(name, getattr(settings, name)) for name in FIELDS})

    def digest(self, name: str, value: object) -> str:
        """Return a digest of a setting, secrets included. Without these passwords it reveals nothing."""
        return hmac.digest(self.device.encode(), f"{name}={_whole(value)}".encode(), "sha256").hex()

    @property
    def passwords(self) -> dict[str, str]:
        """Return the passwords by user name."""
        return {READER: self.reader, DEVICE: self.device}


@contextlib.contextmanager
def published(data_dir: Path, accounts: ProbeAccounts) -> Iterator[None]:
    """Keep the accounts in the data directory, readable by its owner alone, for as long as the block runs."""
    file = data_dir / FILE_NAME
    replace_text(file, json.dumps(asdict(accounts)))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.unlink()


def read(data_dir: Path) -> ProbeAccounts | None:
    """Return the accounts of the gateway that runs on this data directory, or None when none runs."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return ProbeAccounts(**json.loads((data_dir / FILE_NAME).read_text(encoding="utf-8")))
    return None
