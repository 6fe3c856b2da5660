"""Failures of a benchmark that are told in a line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import click

from bench.process import BenchError
from broker_config.local import NoMosquittoError
from gateway.errors import UnavailableError

_EXPECTED: Final = (BenchError, NoMosquittoError, UnavailableError)


@contextmanager
def told_in_a_line() -> Iterator[None]:
    """Turn what is expected to fail into an error of the command line."""
    try:
        yield
    except ExceptionGroup as group:
        expected, unexpected = group.split(_EXPECTED)
        if expected is None or unexpected is not None:
            raise
        raise click.ClickException(_first(expected)) from group
    except _EXPECTED as error:
        raise click.ClickException(str(error)) from error


def _first(error: BaseException) -> str:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else str(error)
