"""``gateway completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

EPILOG = """\b
Examples:
  gateway completion bash > ~/.local/share/bash-completion/completions/gateway
  gateway completion zsh > ~/.zfunc/_gateway
  gateway completion fish > ~/.config/fish/completions/gateway.fish
"""


@click.command(epilog=EPILOG)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    With it, SHELL completes commands, options and values.
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}")
    command = click.get_current_context().find_root().command
    click.echo(kind(command, {}, "gateway", "_GATEWAY_COMPLETE").source())
