"""Messages to PostgreSQL: each is a round trip, and no machine's load changes their number."""

from typing import Any

import psycopg
import pytest


class Messages:
    """What every connection of this process sends from now on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[str] = []
        execute = psycopg.Connection.execute

        def note(connection: Any, query: Any, *arguments: Any, **options: Any) -> Any:
            self.sent.append(query.decode() if isinstance(query, bytes) else str(query))
            return execute(connection, query, *arguments, **options)

        monkeypatch.setattr(psycopg.Connection, "execute", note)

    def forget(self) -> None:
        """Count from here."""
        self.sent.clear()
