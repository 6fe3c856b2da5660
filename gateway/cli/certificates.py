"""``gateway certificates``: certificates of reset, in the registry itself; and their check, which needs no registry."""

from __future__ import annotations

import json
import sys
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from gateway.cli import output
from gateway.cli.certificate_keys import keys_at
from gateway.cli.connection_errors import CA_VARIABLE
from gateway.cli.options import SettingsCommand, with_settings
from gateway.core.text import count
from gateway.domain import certificates
from gateway.errors import NotFoundError
from gateway.settings import registry
from gateway.store import View, certificate_sql, key_sql, open_existing
from gateway.store.device_sql import moment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.settings.loading import Loaded
    from gateway.store.certificate_sql import CertificateRecord

GROUP_EPILOG: Final = """\b
Examples:
  gateway certificates list
  gateway certificates show cert_01JD3N0A1B2C3D4E5F6G7H8J9M --jws
  gateway certificates export > chain.ndjson
  gateway certificates verify chain.ndjson --jwks https://gateway.example/.well-known/jwks.json

What they say and do not prove: 'gateway docs certificates'.
"""
_COLUMNS: Final = ("NUMBER", "CERTIFICATE", "KIND", "OUTCOME", "DEVICE", "RESET", "CREATED")
_PAGE: Final = 500
_NEWEST: Final = (1 << 63) - 1

project_option = click.option(
    "--project", "project", metavar="ID", help="Whose chain, by id or name; none: that of the only project."
)


@click.group(name="certificates", epilog=GROUP_EPILOG)
def certificates_group() -> None:
    """List and verify certificates of reset."""


@certificates_group.command(
    cls=SettingsCommand, name="list", epilog="\b\nExample:\n  gateway certificates list --limit 10 --json"
)
@project_option
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings(*registry.NAMES)
def list_certificates(loaded: Loaded, *, project: str | None, limit: int, as_json: bool) -> None:
    """List certificates of a project.

    The newest first.
    """
    with closing(open_existing(loaded.settings.registry)) as connection:
        view = View(connection)
        rows = certificate_sql.page(view, _project(view, project), after=_NEWEST, limit=limit, order="DESC")
    found = [_facts(row) for row in rows]
    if as_json:
        output.as_json(found)
    else:
        output.table(_COLUMNS, (list(each.values()) for each in found))


def _facts(row: CertificateRecord) -> dict[str, Any]:
    claims = certificates.claims(row.jws)
    return {
        "number": row.seq,
        "id": row.id,
        "kind": row.kind,
        "outcome": claims.outcome,
        "device_id": claims.sub,
        "command_id": row.command_id,
        "created_at": moment(row.created_at),
    }


@certificates_group.command(
    cls=SettingsCommand,
    name="show",
    epilog="\b\nExamples:\n  gateway certificates show cert_01JD3N0A1B2C3D4E5F6G7H8J9M\n"
    "  gateway certificates show cmd_01JD3N0A1B2C3D4E5F6G7H8J9K --jws > reset.jws",
)
@click.argument("name", metavar="CERTIFICATE|COMMAND")
@click.option("--jws", "as_jws", is_flag=True, help="Print the compact JWS alone.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
@with_settings(*registry.NAMES)
def show(loaded: Loaded, *, name: str, as_jws: bool, as_json: bool) -> None:
    """Show a certificate.

    By its id, or by the id of the command of its reset.

    Of a reset with addenda the first certificate is shown, and a note names the others.
    """
    with closing(open_existing(loaded.settings.registry)) as connection:
        found = certificate_sql.find(View(connection), name)
    if not found:
        raise NotFoundError(
            f"There is no certificate '{name[:80]}', and no ended reset of that id that has one. 'gateway certificates "
            "list' shows those there are; an open reset has none yet."
        )
    first = found[0]
    claims = certificates.claims(first.jws).model_dump()
    if as_jws:
        click.echo(first.jws)
    elif as_json:
        output.as_json({"id": first.id, "claims": claims, "jws": first.jws, "sha256": first.sha256})
    else:
        output.details(dict(_flat(claims)) | {"sha256": first.sha256})
    if len(found) > 1:
        output.note(f"What the device said later is in {', '.join(each.id for each in found[1:])}.")


def _flat(claims: dict[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in claims.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{within}{name}.")
        else:
            yield f"{within}{name}", value


@certificates_group.command(
    cls=SettingsCommand,
    name="export",
    epilog="\b\nExamples:\n  gateway certificates export > chain.ndjson\n"
    "  gateway certificates export --after 1200 >> chain.ndjson",
)
@project_option
@click.option("--after", type=click.IntRange(0), default=0, help="Only those after this number.  [default: all]")
@with_settings(*registry.NAMES)
def export(loaded: Loaded, *, project: str | None, after: int) -> None:
    """Write the chain of a project to stdout.

    The oldest first, as JSON, a certificate on each line.
    """
    with closing(open_existing(loaded.settings.registry)) as connection:
        view = View(connection)
        project_id = _project(view, project)
        while rows := certificate_sql.page(view, project_id, after=after, limit=_PAGE):
            for row in rows:
                click.echo(json.dumps(_line(row)))
            after = rows[-1].seq


def _line(row: CertificateRecord) -> dict[str, Any]:
    return {
        "id": row.id,
        "project_id": row.project_id,
        "number": row.seq,
        "created_at": moment(row.created_at),
        "sha256": row.sha256,
        "jws": row.jws,
    }


@certificates_group.command(
    name="verify",
    epilog="\b\nExamples:\n  gateway certificates verify reset.jws --jwks jwks.json\n"
    "  gateway certificates verify chain.ndjson --jwks https://gateway.example/.well-known/jwks.json\n\n"
    "\b\nExit codes:\n  0  everything in the file is right\n  1  something is not; stderr names the first of it\n"
    "  2  wrong usage, or a file that cannot be read",
)
@click.argument("source", metavar="FILE", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option(
    "--jwks", required=True, metavar="FILE|URL", help="The gateway's public keys: what /.well-known/jwks.json answers."
)
@click.option("--partial", "is_partial", is_flag=True, help="Accept a chain that does not begin with number 1.")
@click.option(
    "--ca-file",
    envvar=CA_VARIABLE,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="PEM file with the authority of the gateway's certificate.  [default: the system's]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for a machine.")
def verify(source: str, *, jwks: str, is_partial: bool, ca_file: Path | None, as_json: bool) -> None:
    """Check certificates without a registry.

    Their signatures, and the chain in which each repeats the digest of the one before.

    FILE is one certificate (the compact JWS, or the JSON of the API) or an exported chain; - is stdin. A chain that was
    cut off at its end looks whole: compare its last number with an earlier export.
    """
    from gateway.domain import certificate_check  # noqa: PLC0415 - cryptography, which the other commands do not need

    known = keys_at(jwks, ca_file)
    with nullcontext(sys.stdin) if source == "-" else Path(source).open(encoding="utf-8", errors="replace") as lines:
        found = certificate_check.check(lines, known, is_partial=is_partial)
    if as_json:
        output.as_json([each._asdict() for each in found])
        return
    for each in found:
        numbers = f"number {each.first}" if each.certificates == 1 else f"numbers {each.first} to {each.last}"
        click.echo(f"good: {count(each.certificates, 'certificate')} of {each.project_id}, {numbers}")


def _project(view: View, wanted: str | None) -> str:
    """Return the id of the project.

    Raises:
        NotFoundError: there is no project, or no such one.
        click.UsageError: there are several, and none is named.
    """
    if wanted is not None:
        return key_sql.require_project(view, wanted).id
    projects = key_sql.projects(view)
    if not projects:
        raise NotFoundError("There is no project yet. Make one: gateway projects create NAME")
    if len(projects) > 1:
        known = ", ".join(f"{row.id} ({row.name})" for row in projects)
        raise click.UsageError(f"There are several projects: name one with --project. They are {known}.")
    return projects[0].id
