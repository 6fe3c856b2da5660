"""Commands that a hint suggests as the next step. They work as printed, except for API keys, which are hidden."""

import shlex
from collections.abc import Iterator, Mapping

import click
from click.core import ParameterSource

_ONCE = ("supersede_reset", "until_reset", "serial")
_KEY_CHARACTERS = 8  # sk_live_, the kind of the key; the rest is secret


def repeat_command(context: click.Context, replacements: Mapping[str, str]) -> str:
    """Return the present command with other values of these options. Values from the environment are left out."""
    given = [word for each in context.command.params for word in _as_typed(context, each)]
    changed = [word for option in replacements.items() for word in option]
    return " ".join((context.command_path, *given, shlex.join(changed)))


def _as_typed(context: click.Context, option: click.Parameter) -> Iterator[str]:
    name = option.name or ""
    if name in _ONCE or context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
        return
    yield option.opts[0]
    value = str(context.params[name])
    if name == "key":
        yield f"{value[:_KEY_CHARACTERS]}…"
    elif not (isinstance(option, click.Option) and option.is_flag):
        yield shlex.quote(value)
