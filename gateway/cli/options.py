"""Options made from the settings: each field of ``Settings`` is one, with its description, default and group."""

from __future__ import annotations

import functools
import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.shell_completion import CompletionItem

from gateway.core.visible_text import escaped
from gateway.settings.loading import CONFIG_NAME, FIELDS, form, group, load, option_name, written

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

OWN: Final = "Options"


class SettingOption(click.Option):
    """The option of one setting, under the heading of the setting's group."""

    def __init__(self, declarations: Sequence[str], heading: str, **attributes: Any) -> None:
        super().__init__(declarations, **attributes)
        self.heading = heading


class _Text(click.ParamType[str]):
    """Text that completes to the words or paths of a setting."""

    name = "text"

    def __init__(self, written: str) -> None:
        self.written = written

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return the matching words, or the marker that makes the shell complete paths."""
        words = self.written.split("|")
        if words[0] in ("DIR", "FILE"):
            return click.Path(file_okay=words[0] == "FILE").shell_complete(ctx, param, incomplete)
        return [CompletionItem(word) for word in words if not word.isupper() and word.startswith(incomplete)]


class SettingsCommand(click.Command):
    """A command whose help shows the options under the headings of the settings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section per heading, in the order of the settings, the command's own options first."""
        given = [each for each in self.get_params(ctx) if isinstance(each, click.Option)]
        options = sorted(given, key=lambda option: _heading(option) != OWN)
        for heading, listed in itertools.groupby(options, key=_heading):
            records = [record for option in listed if (record := option.get_help_record(ctx))]
            with formatter.section(heading):
                formatter.write_dl(records)


def with_settings(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a command with ``--config`` and the options of these settings (of all when none is named).

    The command gets ``loaded``, a ``gateway.settings.loading.Loaded``. Warnings are printed on stderr.
    """
    chosen = names or tuple(FIELDS)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def command(*, config: Path | None, **given: Any) -> Any:
            loaded = load({name: given.pop(name) for name in chosen}, os.environ, config)
            for warning in loaded.warnings:
                click.echo(f"warning: {escaped(warning)}", err=True)
            return function(loaded=loaded, **given)

        for name in reversed(chosen):
            _option(name)(command)
        _config_option(command)
        return command

    return decorate


def _heading(option: click.Parameter) -> str:
    return option.heading if isinstance(option, SettingOption) else OWN


def _config_option(command: Callable[..., Any]) -> None:
    click.option(
        "--config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help=f"TOML file with settings.  [default: {CONFIG_NAME} in the data directory, if there is one]",
    )(command)


def _option(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option's decorator. Values stay text, so that one parser reports errors whatever their source."""
    field, option, value_form = FIELDS[name], option_name(name), form(name)
    flag = value_form.startswith("true|false")
    return click.option(
        f"{option}/--no-{option[2:]}" if flag else option,
        name,
        cls=SettingOption,
        heading=group(name),
        help=f"{field.description}  [default: {written(field.default)}]",
        default=None,
        **({} if flag else {"metavar": value_form, "type": _Text(value_form)}),
    )
