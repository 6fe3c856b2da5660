"""Settings of the registry: its data directory, or its database and the password for that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, SecretStr

from gateway.core.postgres_address import PostgresAddress
from gateway.runtime.private_files import read_secret_line
from gateway.settings.groups import PLACE, setting
from gateway.settings.types import BrokerId, Cells, Directory, File, MaybeDatabase, Seconds

NAMES = ("data_dir", "database", "database_password_file")
"""What a command needs to open the registry."""


class RegistryFields(BaseModel):
    """Where the registry is."""

    data_dir: Directory = setting(
        PLACE, Path("gateway-data"), "Folder for the registry and keys, created when missing; one gateway at a time."
    )
    database: MaybeDatabase = setting(
        PLACE,
        None,
        "The registry's database: postgresql://USER@HOST:PORT/DATABASE, several hosts with commas between ('gateway "
        "docs scaling'); none: SQLite in data_dir.",
    )
    database_password_file: File = setting(
        PLACE,
        None,
        "File with the password of that user; none: the one in the URL, in PGPASSWORD, or in the file of PGPASSFILE.",
    )

    broker_id: BrokerId = setting(
        PLACE,
        "default",
        "Name of the broker among those of the registry. Of the gateways that name the same one, one serves it and the "
        "others stand by ('gateway docs standby').",
    )
    cells: Cells = setting(
        PLACE,
        "any",
        "Which brokers of the registry serve a device: any, so that it may connect to each; home: the one that its "
        "bind chose and told ('gateway docs scaling'). Set it alike at all gateways.",
    )
    lease_seconds: Seconds = setting(
        PLACE,
        6.0,
        "With a registry on PostgreSQL: how long a gateway that died keeps another from taking over. One that cannot "
        "reach the registry stops serving its broker within that time.",
        ge=1,
        le=60,
    )

    @property
    def is_shared(self) -> bool:
        """Return whether other gateways may be at work on the registry."""
        return self.database is not None

    @property
    def registry(self) -> Path | PostgresAddress:
        """Return the data directory, or the address of the database with its password.

        Raises:
            UnavailableError: the password's file cannot be read, or holds no password.
        """
        address, file = self.database, self.database_password_file
        if address is None or file is None:
            return address or self.data_dir
        return replace(
            address,
            password=SecretStr(read_secret_line(file, "database_password_file", "the password of the database user")),
        )
