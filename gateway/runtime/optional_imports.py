"""Optional parts of other packages that stay unloaded."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without(package: str) -> Iterator[None]:
    """Make imports inside the block find this package missing, through ``None`` in ``sys.modules``.

    (https://docs.python.org/3/reference/import.html#the-module-cache) A package that is loaded already stays as it is.
    """
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]
