"""Lazy loading: the file of a command, and modules, are loaded on first use.

``gateway serve`` knows all commands and runs none of the others. Loading them would cost it several MB permanently.
"""

from __future__ import annotations

import importlib.util
import pkgutil
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from types import ModuleType

import click


class Commands(MutableMapping[str, click.Command]):
    """Commands by name, each given as ``module:name`` and imported on first use."""

    def __init__(self, places: Mapping[str, str]) -> None:
        self._held: dict[str, click.Command | str] = dict(places)

    def __getitem__(self, name: str) -> click.Command:
        """Return the command of this name."""
        held = self._held[name]
        command: click.Command = pkgutil.resolve_name(held) if isinstance(held, str) else held
        self._held[name] = command
        return command

    def __setitem__(self, name: str, command: click.Command) -> None:
        """Add a loaded command."""
        self._held[name] = command

    def __delitem__(self, name: str) -> None:
        """Remove a command."""
        del self._held[name]

    def __iter__(self) -> Iterator[str]:
        """Return the names, in the order in which they were given."""
        return iter(self._held)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._held)


def lazily(name: str) -> ModuleType:
    """Return the module of this name, loaded on first use.

    See https://docs.python.org/3/library/importlib.html#implementing-lazy-imports.
    """
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    spec.loader = loader = importlib.util.LazyLoader(spec.loader)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module
