"""``gateway end-users``: what is kept about a person, and its erasure."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import click

from gateway.cli import output
from gateway.cli.api import ApiClient, Json, Place, at, with_gateway
from gateway.cli.devices import json_option, yes_option
from gateway.cli.options import SettingsCommand
from gateway.errors import ConflictError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

GROUP_EPILOG: Final = """\b
Examples:
  gateway end-users export eu_42 --output eu_42.ndjson
  gateway end-users erase eu_42
"""
_PERSON: Final = click.argument("end_user_id", metavar="END_USER")
_EVERY_SECONDS: Final = 1.0
_END: Final = '{"kind":"end",'


@click.group(name="end-users", epilog=GROUP_EPILOG)
def end_users_group() -> None:
    """Export and erase what is kept about a person."""


@end_users_group.command(
    cls=SettingsCommand,
    name="export",
    epilog="""\b
Examples:
  gateway end-users export eu_42 --output eu_42.ndjson
  gateway end-users export eu_42 | jq 'select(.kind == "binding")'
""",
)
@_PERSON
@click.option(
    "--output",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write it there, readable by you alone; none: print it.",
)
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@with_gateway
def export(place: Place, *, end_user_id: str, file: Path | None, force: bool) -> None:
    """Export what is kept about a person.

    A line of JSON each: bindings, devices, events, commands, heartbeats, and at last the counts. An export without its
    last line fails with exit code 1, and FILE is not written then. It holds personal data: hand it to the person, then
    delete it.
    """
    if file is not None and file.exists() and not force:
        raise ConflictError("file_exists", f"{file} is there already. Name another file, or add --force.")
    with _target(file) as target:
        last = place.run(lambda api: _copy(api, end_user_id, target))
    counts = ", ".join(f"{count} {kind}s" for kind, count in json.loads(last)["counts"].items() if count)
    output.note(f"{end_user_id}: {counts or 'nothing is kept'}.")


@contextmanager
def _target(file: Path | None) -> Iterator[IO[str]]:
    """Yield what to write to. A file gets its name when all is written."""
    if file is None:
        yield sys.stdout
        return
    part = file.with_name(f"{file.name}.part")
    part.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as opened:
            yield opened
            opened.flush()
            os.fsync(opened.fileno())
        part.replace(file)
    except OSError as error:
        raise UnavailableError(
            f"{file} could not be written ({error.strerror}). Make room, or name another."
        ) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


async def _copy(api: ApiClient, end_user_id: str, target: IO[str]) -> str:
    """Write the lines; return the last."""
    lines, shown, line = 0, time.monotonic(), ""
    async for line in api.lines(at("end-users", end_user_id, "data"), {}):
        target.write(f"{line}\n")
        lines += 1
        if sys.stderr.isatty() and time.monotonic() - shown > _EVERY_SECONDS:
            click.echo(f"\r{lines} lines", nl=False, err=True)
            shown = time.monotonic()
    if not line.startswith(_END):
        raise UnavailableError(
            f"The export of {end_user_id} was cut off, or an erasure of the person began. Start it again."
        )
    return line


@end_users_group.command(
    cls=SettingsCommand,
    name="erase",
    epilog="\b\nExamples:\n  gateway end-users erase eu_42\n  gateway end-users erase eu_42 --yes --json",
)
@_PERSON
@yes_option
@json_option
@with_gateway
def erase(place: Place, *, end_user_id: str, yes: bool, as_json: bool) -> None:
    """Erase what is kept about a person.

    It ends when all is erased. Unbind or reset the person's devices first: exit code 5 says that one is still bound.
    Interrupted, the erasure goes on where a gateway runs, and with the next call otherwise. Backups made before still
    hold the person: erase the person again after a restore.
    """
    output.confirm(f"This erases everything that is kept about {end_user_id}. It cannot be undone.", yes=yes)
    erased = place.run(lambda api: _erase(api, end_user_id))
    if as_json:
        output.as_json(erased)
        return
    output.details({"pseudonym": erased["pseudonym"], **erased["counts"]})
    for device in erased["open_resets"]:
        output.note(f"{device} has not executed its reset: it may still hold recordings of {end_user_id}.")
    for each in erased["mentions"]:
        output.note(f"{each['field']} of {each['id']} names {end_user_id}: change it yourself.")
    if erased["has_more_mentions"]:
        output.note("There are more such places: change these, then run this again.")


async def _erase(api: ApiClient, end_user_id: str) -> Json:
    path = at("end-users", end_user_id)
    first = erased = await api.delete(path)
    while erased["status"] == "running":
        output.note(f"{erased['counts']['heartbeats']} heartbeats are erased, it goes on.")
        erased = await api.delete(path)
    if erased["pseudonym"] != first["pseudonym"]:  # it ended between two calls
        page = await api.get(at("events"), type="end_user.erased", limit=100)
        told = (event["data"] for event in page["data"] if event["data"].get("pseudonym") == first["pseudonym"])
        counts = next(told, {"counts": first["counts"]})["counts"]
        erased |= {"pseudonym": first["pseudonym"], "counts": counts}
    return erased | {"open_resets": first["open_resets"]}
