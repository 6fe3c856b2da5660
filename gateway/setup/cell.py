"""Cell of ``gateway broker init``: one broker of a registry on PostgreSQL, and the gateway that serves it."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import SecretStr, TypeAdapter, ValidationError

from gateway.core.postgres_address import PostgresAddress
from gateway.errors import InvalidRequestError
from gateway.runtime.private_files import read_secret_line
from gateway.settings.types import BrokerId

PASSWORD_NAME: Final = "gateway/database-password"  # noqa: S105 - the name of a file
_ONE_AUTHORITY: Final = (
    "This cell has a trial authority, and devices that change between cells have to trust those of all cells. Give all "
    "cells a certificate of one authority (--cert-file, --key-file, --ca-file), or copy DIR/authority of the first "
    "cell before you run this for the next one."
)
_ELSEWHERE: Final = (
    "The gateway connects to its broker as {name}, and that name does not lead to this machine: it would serve the "
    "broker of another cell. Add the line '127.0.0.1 {name}' to /etc/hosts, or give a further --name that the "
    "certificate holds and that leads to this machine."
)


@dataclass(frozen=True)
class Cell:
    """The ids of broker and gateway, and the database with the password of its user."""

    broker_id: str
    gateway_id: str
    database: PostgresAddress
    password: SecretStr | None


def cell_of(
    broker_id: str | None, gateway_id: str | None, database: str | None, password_file: str | None
) -> Cell | None:
    """Return the cell that the options ask for, or None.

    Raises:
        InvalidRequestError: an option is missing or wrong; the message names it.
        UnavailableError: the password cannot be read.
    """
    if broker_id is None:
        given = {"database": database, "database-password-file": password_file, "gateway-id": gateway_id}
        lonely = [name for name, value in given.items() if value is not None]
        if lonely:
            raise InvalidRequestError(f"--{lonely[0]} belongs to a cell: name the cell with --cell ID.")
        return None
    if database is None:
        raise InvalidRequestError(
            "--cell needs --database postgresql://USER@HOST/DATABASE: cells share one registry on PostgreSQL."
        )
    return Cell(
        _id("--cell", broker_id),
        _id("--gateway-id", gateway_id or f"gw_{broker_id}"),
        _database(database),
        _password(password_file),
    )


def _id(option: str, text: str) -> str:
    try:
        return TypeAdapter[str](BrokerId).validate_python(text)
    except ValidationError as error:
        raise InvalidRequestError(f"{option}: {text[:80]!r} {error.errors()[0]['ctx']['error']}.") from None


def _password(file: str | None) -> SecretStr | None:
    if file is None:
        return None
    return SecretStr(read_secret_line(Path(file), "--database-password-file", "the password of the database user"))


def _database(text: str) -> PostgresAddress:
    """Return the address. A password in it is refused: others see it in the list of processes."""
    try:
        address = PostgresAddress.parse(text)
    except ValueError as error:
        raise InvalidRequestError(f"--database: {error}.") from None
    if address.password is not None:
        raise InvalidRequestError(
            "--database: leave the password out of the URL. Write it into a file that only you can read, and name that "
            "with --database-password-file."
        )
    if any(each in address.url for each in '"\\\n'):
        raise InvalidRequestError("--database: should have no quotation mark and no backslash.")
    return address


def problems(tls: str, broker_host: str) -> list[str]:
    """Return what would go wrong in a cell, a sentence or two for each; empty when all is well.

    ``broker_host`` is the name by which the gateway connects to its broker.
    """
    if tls == "trial":
        return [_ONE_AUTHORITY]
    if tls == "none" or _is_here(broker_host):
        return []
    return [_ELSEWHERE.format(name=broker_host)]


def _is_here(host: str) -> bool:
    """Return whether the host is an address of this machine: only such an address can be bound."""
    try:
        family, kind, _, _, (address, *_) = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def settings_text(cell: Cell | None, directory: Path) -> str:
    """Return the lines of ``gateway.toml`` about the cell, to follow those of the data directory."""
    if cell is None:
        return ""
    password = (
        "# No password: the server knows this user otherwise, or PGPASSFILE names a file.\n"
        if cell.password is None
        else f'database_password_file = "{directory / PASSWORD_NAME}"\n'
    )
    return (
        "\n\n"
        "# The registry is in a database that all cells share ('gateway docs scaling'). The folder above then holds a\n"
        "# lock and the position of the registry.\n"
        f'database = "{cell.database.url}"\n'
        f"{password}"
        "\n"
        "# Name of this broker among those of the registry. Another gateway for this broker needs another gateway_id.\n"
        f'broker_id = "{cell.broker_id}"\n'
        f'gateway_id = "{cell.gateway_id}"'
    )
