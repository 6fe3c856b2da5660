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
    except Exception as error:
        if (message := in_a_line(error)) is None:
            raise
        raise click.ClickException(message) from error


def in_a_line(error: Exception) -> str | None:
    """Return what failed, or None where that is not expected."""
    if isinstance(error, ExceptionGroup):
        expected, unexpected = error.split(_EXPECTED)
        return None if expected is None or unexpected is not None else _first(expected)
    return str(error) if isinstance(error, _EXPECTED) else None


def _first(error: BaseException) -> str:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else str(error)
