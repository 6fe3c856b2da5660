"""Suggested commands in hints: they work as they are printed."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_WHERE: Final = ("config", "data_dir", "url", "project", "ca_file")


def again(*words: str) -> str:
    """Return a command with the options that choose this place; the environment has the rest."""
    return shlex.join(("gateway", *words, *_given(only=_WHERE)))


def repeated(instead: Mapping[str, str]) -> str:
    """Return this command as it was given, with these options in place of the given ones."""
    context = click.get_current_context()
    left = [each.name or "" for each in context.command.params if each.opts[0] not in instead]
    changed = [word for option in instead.items() for word in option]
    return shlex.join((*context.command_path.split(), *_given(only=left), *changed))


def _given(only: Iterable[str]) -> list[str]:
    """Return the arguments of these parameters as they were given on the command line."""
    context = click.get_current_context()
    return [
        word
        for each in context.command.params
        if each.name in only and context.get_parameter_source(each.name) is ParameterSource.COMMANDLINE
        for word in _written(each, context.params[each.name])
    ]


def _written(parameter: click.Parameter, value: object) -> list[str]:
    if isinstance(parameter, click.Option) and parameter.is_flag:
        return [parameter.opts[0] if value else parameter.secondary_opts[0]]
    values = value if isinstance(value, tuple) else (value,)
    before = [parameter.opts[0]] if isinstance(parameter, click.Option) else []
    return [word for each in values for word in (*before, str(each))]
