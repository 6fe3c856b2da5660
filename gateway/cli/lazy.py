"""Modules that are loaded when something of them is first asked for.

``gateway serve`` knows all commands and runs none of the others: their HTTP client would take 3 MB of it for good.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType


def lazily(name: str) -> ModuleType:
    """The module of this name, loaded later (https://docs.python.org/3/library/importlib.html#implementing-lazy-imports)."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    spec.loader = loader = importlib.util.LazyLoader(spec.loader)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module
