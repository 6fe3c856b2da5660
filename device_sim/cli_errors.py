"""Command-line errors in the format of `gateway`: one line each on stderr, and an exit code."""

import functools
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from device_sim.error_hints import remedy
from device_sim.errors import SimulatorError
from device_sim.terminal_text import escaped

FAILURE, USAGE, INTERRUPTED = 1, 2, 130
_ENDS = (".", "!", "?", "…")


class Failure(click.ClickException):
    """An expected error: what went wrong, and what to do about it."""

    exit_code = FAILURE


class SimulatorCommands(click.Group):
    """Command group that reports the errors of all its commands."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: FBT001, FBT002  # click's signature
        **extra: Any,
    ) -> Any:
        """Run a command and exit, or return its result when ``standalone_mode`` is off."""
        run = functools.partial(super().main, args, prog_name, complete_var, standalone_mode=False, **extra)
        if not standalone_mode:
            return run()
        try:
            result: Any = run()
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            sys.exit(USAGE)
        except click.ClickException as error:
            _print_error_and_exit(error)
        except click.Abort:
            sys.exit(INTERRUPTED)
        sys.exit(result if isinstance(result, int) else 0)


def _print_error_and_exit(error: click.ClickException) -> NoReturn:
    for line in error.format_message().split("\n"):
        click.echo(f"error: {escaped(line)}", err=True)
    if isinstance(error, click.UsageError) and error.ctx is not None:
        click.echo(f"try: {error.ctx.command_path} --help", err=True)
    sys.exit(error.exit_code)


def failure(error: BaseException) -> Failure:
    """Return the error as sentences: first what happened, then what to do."""
    advice = remedy(error) if isinstance(error, SimulatorError) else ""
    return Failure(" ".join(sentence(each) for each in (str(error), advice) if each))


def sentence(text: str) -> str:
    """Return the text with a capital and a full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith(_ENDS) else ".")
